"""`fleetgate block`, `unblock` and `blocks`: tenants and keys that are shut out at once."""

import json
from typing import Annotated, Any

import typer

from gateway.cli.options import LOCAL, AdminToken, AdminUrl, AsJson, asking
from gateway.cli.tables import new_table, print_table
from gateway.cli.terminal import tell
from gateway.cli.times import shown

Subject = Annotated[str, typer.Argument(metavar="TENANT|KEY", help="A tenant's name, or the id of a key (key_...).")]
Reason = Annotated[str, typer.Option(help="Why, for the audit.")]


def block(subject: Subject, reason: Reason = "", admin: AdminUrl = LOCAL, token: AdminToken = None) -> None:
    """Refuse all further requests of a tenant or a key, of the config file too, in every gateway within two seconds."""
    with asking(admin, token) as control:
        control.post("/admin/block", {**_named(subject), "reason": reason})
    tell(f"{subject} is blocked; `fleetgate unblock {subject}` lets it in again")


def unblock(subject: Subject, reason: Reason = "", admin: AdminUrl = LOCAL, token: AdminToken = None) -> None:
    """Let a blocked tenant or key in again."""
    with asking(admin, token) as control:
        control.post("/admin/unblock", {**_named(subject), "reason": reason})
    tell(f"{subject} is unblocked")


def blocks(as_json: AsJson = False, admin: AdminUrl = LOCAL, token: AdminToken = None) -> None:
    """All tenants and keys that are blocked: by whom, since when, and why."""
    with asking(admin, token) as control:
        found = control.get("/admin/blocks")
    if as_json:
        tell(json.dumps(found, indent=2))
        return
    table = new_table("blocked", "by", "since", "reason")
    for each in found:
        table.add_row(each["subject"], each["who"], shown(each["at"]), each["reason"])
    print_table(table)


def _named(subject: str) -> dict[str, Any]:
    return {"key": subject} if subject.startswith("key_") else {"tenant": subject}
