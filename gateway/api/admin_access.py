"""Who may do what on the admin listener, and who it was."""

from typing import Annotated

from fastapi import Depends, Header, Request
from fastapi.exceptions import HTTPException

from gateway.api.layers import address_of
from gateway.core.tenants import same_secret


class AdminAccess:
    """Checks the admin tokens, of which there may be none on loopback. Notes who came, for `Who`."""

    def __init__(self, tokens: dict[str, str]) -> None:
        """`tokens`: name to token."""
        self._tokens = tokens

    def __call__(self, request: Request, authorization: Annotated[str | None, Header()] = None) -> None:
        request.state.who = f"{self._name(authorization)}@{address_of(request.client)}"

    def _name(self, authorization: str | None) -> str:
        if not self._tokens:
            return "anybody"
        scheme, _, presented = (authorization or "").partition(" ")
        given = presented.strip().encode() if scheme.lower() == "bearer" else None
        names = [name for name, token in self._tokens.items() if same_secret(given, token)]
        if not names:
            raise HTTPException(401, "Send 'Authorization: Bearer TOKEN' with the admin token.")
        return names[0]


def _who(request: Request) -> str:
    who: str = request.state.who
    return who


Who = Annotated[str, Depends(_who)]
"""For routes behind an `AdminAccess`: the token's name and the address, as the audit tells them."""
