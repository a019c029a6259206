"""`fleetgate reload`: have a running gateway read its config file again."""

import json

from gateway.cli.options import LOCAL, AdminToken, AdminUrl, AsJson, asking
from gateway.cli.terminal import tell


def reload(as_json: AsJson = False, admin: AdminUrl = LOCAL, token: AdminToken = None) -> None:
    """Have a gateway read its config file again, in every process, and show what that changed; exit status 1 where it
    refuses the file. Open streams are not touched."""
    with asking(admin, token) as control:
        done = control.post("/admin/reload")
    if as_json:
        tell(json.dumps(done, indent=2))
        return
    changed = done.get("changed", [])
    tell("\n".join(["reloaded; changed:", *changed]) if changed else "reloaded; nothing changed")
    for name in done["needs_restart"]:
        tell(f"{name} takes effect at the next restart", err=True)
