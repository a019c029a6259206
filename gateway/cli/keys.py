"""`fleetgate keys`: the keys that open the fleet."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from gateway.cli.admin_client import path_of
from gateway.cli.options import LOCAL, AdminToken, AdminUrl, AsJson, asking, misused, tree_of
from gateway.cli.tables import new_table, print_table
from gateway.cli.terminal import tell
from gateway.cli.times import moment_of, seconds_of, shown

keys = typer.Typer(no_args_is_help=True, help="API keys of tenants.")

IdArgument = Annotated[str, typer.Argument(help="Id of the key, as `keys list` shows it.")]


@keys.command("new")
def new_key() -> None:
    """Make a key for the config file, and the line with its SHA-256 for it. The key is shown this once."""
    from gateway.access.new_keys import make_key

    key, digest = make_key()
    tell(f"key (give it to the tenant, it is not kept):  {key}")
    tell(f"in the config, under the tenant's keys:       - sha256: {digest}")


@keys.command("create")
def create_key(
    tenant: Annotated[str, typer.Argument(help="The tenant of the key.")],
    settings: Annotated[
        list[str] | None, typer.Argument(help="Further settings: limits.requests_per_minute=60")
    ] = None,
    label: Annotated[str, typer.Option(help="A label for people: owner, purpose.")] = "",
    model: Annotated[list[str] | None, typer.Option(help="A model that the key may use; repeatable.")] = None,
    expires: Annotated[str | None, typer.Option(help="Expiry: 30d from now, or 2027-01-31.")] = None,
    as_json: AsJson = False,
    admin: AdminUrl = LOCAL,
    token: AdminToken = None,
) -> None:
    """Make a key that works at once. It is shown this once: only its SHA-256 is kept."""
    body: dict[str, Any] = {**tree_of(settings or []), "tenant": tenant}
    if label:
        body["label"] = label
    if model:
        body["models"] = model
    if expires is not None:
        body["expires"] = _understood(expires).isoformat()
    with asking(admin, token) as control:
        _show_new(control.post("/admin/keys", body), as_json)


@keys.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    as_json: AsJson = False,
    admin: AdminUrl = LOCAL,
    token: AdminToken = None,
) -> None:
    """All keys: whose they are, what they may, when they were last used. Never the keys themselves."""
    with asking(admin, token) as control:
        found = control.get("/admin/keys", tenant=tenant)
    if as_json:
        tell(json.dumps(found, indent=2))
        return
    table = new_table("key", "tenant", "label", "from", "state", "models", "expires", "created", "last used")
    for key in found:
        times = [shown(key[name]) for name in ("expires", "created", "last_used")]
        models = ", ".join(key["models"]) or "all"
        table.add_row(key["id"], key["tenant"], key["label"], key["origin"], key["state"], models, *times)
    print_table(table)


@keys.command("revoke")
def revoke_key(id: IdArgument, admin: AdminUrl = LOCAL, token: AdminToken = None) -> None:
    """Take a key out: every gateway refuses it within two seconds."""
    with asking(admin, token) as control:
        gone = control.ask("DELETE", path_of("admin", "keys", id))
    tell(f"{gone['id']} of {gone['tenant']} is revoked")


@keys.command("rotate")
def rotate_key(
    id: IdArgument,
    grace: Annotated[str, typer.Option(help="How long the old key stays valid: 15m, 24h, 7d, 0.")] = "24h",
    as_json: AsJson = False,
    admin: AdminUrl = LOCAL,
    token: AdminToken = None,
) -> None:
    """Make a key with the same settings in the place of one, which goes on working for a while."""
    try:
        seconds = seconds_of(grace)
    except ValueError as error:
        raise misused(str(error)) from None
    with asking(admin, token) as control:
        _show_new(control.post(path_of("admin", "keys", id, "rotate"), {"grace_seconds": seconds}), as_json)
    tell(f"the old key {id} stays valid for {grace}" if seconds else f"the old key {id} is invalid now", err=True)


def _understood(expires: str) -> datetime:
    try:
        return moment_of(expires, datetime.now(UTC), ahead=True)
    except ValueError as error:
        raise misused(str(error)) from None


def _show_new(made: dict[str, Any], as_json: bool) -> None:
    """The key alone goes to the standard output, so that it can be kept by a script."""
    if as_json:
        tell(json.dumps(made, indent=2))
        return
    ends = "" if made["expires"] is None else f", until {shown(made['expires'])} UTC"
    tell(f"{made['id']} for {made['tenant']}{ends}; this is the only time that the key is shown:", err=True)
    tell(made["key"])
