"""`fleetgate tenants`: who may use the fleet, created and changed at run time."""

import json
from typing import Annotated, Any

import typer

from gateway.cli.admin_client import path_of
from gateway.cli.options import LOCAL, AdminToken, AdminUrl, AsJson, asking, misused, tree_of
from gateway.cli.tables import new_table, print_table
from gateway.cli.terminal import tell
from gateway.cli.times import shown

tenants = typer.Typer(no_args_is_help=True, help="Tenants that are created at run time (needs access.stored).")

NameArgument = Annotated[str, typer.Argument(help="Name of the tenant.")]
Settings = Annotated[
    list[str] | None,
    typer.Argument(help="Settings as in the config file: limits.requests_per_minute=60 models='[a, b]'"),
]


@tenants.command("create")
def create_tenant(
    name: NameArgument, settings: Settings = None, admin: AdminUrl = LOCAL, token: AdminToken = None
) -> None:
    """Create a tenant. Give it a key next: fleetgate keys create NAME."""
    with asking(admin, token) as control:
        _show(control.post("/admin/tenants", {**tree_of(settings or []), "name": name}))
    tell(f"next: fleetgate keys create {name}", err=True)


@tenants.command("list")
def list_tenants(as_json: AsJson = False, admin: AdminUrl = LOCAL, token: AdminToken = None) -> None:
    """All tenants, those of the config file included."""
    with asking(admin, token) as control:
        found = control.get("/admin/tenants")
    if as_json:
        tell(json.dumps(found, indent=2))
        return
    table = new_table("tenant", "from", "keys", "changed", "settings")
    for tenant in found:
        settings = ", ".join(_lines(tenant["settings"])) or "-"
        table.add_row(tenant["name"], tenant["origin"], str(tenant["keys"]), shown(tenant["changed"]), settings)
    print_table(table)


@tenants.command("show")
def show_tenant(name: NameArgument, as_json: AsJson = False, admin: AdminUrl = LOCAL, token: AdminToken = None) -> None:
    """One tenant with its settings."""
    with asking(admin, token) as control:
        _show(control.get(path_of("admin", "tenants", name)), as_json)


@tenants.command("set")
def set_tenant(
    name: NameArgument, settings: Settings = None, admin: AdminUrl = LOCAL, token: AdminToken = None
) -> None:
    """Change settings; an empty value takes one back to its default: limits.requests_per_minute="""
    if not settings:
        raise misused("nothing to set: use fleetgate tenants set NAME limits.requests_per_minute=60")
    with asking(admin, token) as control:
        _show(control.ask("PATCH", path_of("admin", "tenants", name), tree_of(settings)))


@tenants.command("limits")
def show_limits(name: NameArgument, as_json: AsJson = False, admin: AdminUrl = LOCAL, token: AdminToken = None) -> None:
    """What is left of a tenant's limits, as all gateways count it; those of its keys aside."""
    with asking(admin, token) as control:
        found = control.get(path_of("admin", "limits", name))
    if as_json:
        tell(json.dumps(found, indent=2))
        return
    if not found:
        tell(f"{name} has no limits")
        return
    table = new_table("limit", "model", "of", "left", "left %")
    for each in found:
        share = f"{100 * each['left'] / each['of']:.0f}%"
        table.add_row(each["limit"], each["model"] or "all", f"{each['of']:g}", f"{each['left']:.4g}", share)
    print_table(table)


@tenants.command("delete")
def delete_tenant(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    admin: AdminUrl = LOCAL,
    token: AdminToken = None,
) -> None:
    """Delete a tenant and all its keys. What it used stays in the usage."""
    with asking(admin, token) as control:
        keys = control.get(path_of("admin", "tenants", name))["keys"]
        if not yes:
            typer.confirm(f"Delete {name} and its keys ({keys})?", abort=True)
        gone = control.ask("DELETE", path_of("admin", "tenants", name))
    tell(f"{gone['name']} is deleted, and {gone['keys']} of its keys")


def _show(tenant: dict[str, Any], as_json: bool = False) -> None:
    if as_json:
        tell(json.dumps(tenant, indent=2))
        return
    known = {"keys": tenant["keys"], "created": shown(tenant["created"]), "changed": shown(tenant["changed"])}
    facts = {"tenant": tenant["name"], "from": tenant["origin"], **known}
    for line in (*_lines(facts), *(f"  {line}" for line in _lines(tenant["settings"]))):
        tell(line)


def _lines(settings: dict[str, Any], above: str = "") -> list[str]:
    """Settings as they are written to `set`, a line each."""
    lines = []
    for name, value in settings.items():
        if isinstance(value, dict):
            lines += _lines(value, f"{above}{name}.")
        else:
            lines.append(f"{above}{name}: {value if isinstance(value, str) else json.dumps(value)}")
    return lines
