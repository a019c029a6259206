"""Session tokens of the console: signed, so that every process that knows an admin token reads what another one made.

A token is `PAYLOAD.MAC`. The payload has the name of the admin token that was shown, the person's name, when the
session ends and began, and its id; the MAC's key is derived from the admin token itself. So a session ends with its
time, or when its admin token is replaced, and no process has to remember it. One is ended before by its id.
"""

import base64
import binascii
import hashlib
import hmac
import unicodedata
from collections.abc import Mapping
from typing import NamedTuple

import orjson

SESSION_SECONDS = 12 * 3600.0

MAX_TOKEN = 1024
"""Characters of a session token that are looked at."""

MAX_NAME = 60
"""Characters of a person's name."""

_MAC_BYTES = 32
_MARK_ROUNDS = 20_000
_SPECIAL = frozenset("@()<>&\"'`\\")
"""Characters that a name has not: the first three part the words of an audit line, the others may be markup."""

_UNSEEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
"""Categories of control characters, line breaks, and what no font has."""


class Session(NamedTuple):
    """`token`: the name of the admin token that was shown. `person`: who showed it, by their own word. `ends` and
    `began`: seconds since 1970."""

    token: str
    person: str
    ends: float
    began: float
    id: str

    @property
    def who(self) -> str:
        """As audit lines have it."""
        return f"{self.person} ({self.token})"


def session_key(secret: bytes) -> bytes:
    """The key of the sessions that an admin token opened."""
    return hmac.digest(secret, b"fleetgate console session", "sha256")


def session_mark(key: bytes) -> str:
    """Tells the sessions of an admin token from those of the one that it replaced. It is kept with them, so whoever
    reads it is to learn little of the token: it is short, and takes 8 ms to make."""
    return hashlib.pbkdf2_hmac("sha256", key, b"fleetgate console mark", _MARK_ROUNDS)[:2].hex()


def seal_session(session: Session, key: bytes) -> str:
    payload = base64.urlsafe_b64encode(orjson.dumps([*session])).rstrip(b"=")
    return f"{payload.decode()}.{hmac.digest(key, payload, 'sha256').hex()}"


def open_session(sealed: str, keys: Mapping[str, bytes], now: float) -> Session | None:
    """The session of a token, by the `keys` of each admin token; None where it is forged, over, or of no token that
    there is."""
    payload, dot, mac = sealed.partition(".")
    if not dot or len(sealed) > MAX_TOKEN or len(mac) != 2 * _MAC_BYTES:
        return None
    try:
        token, person, ends, began, id = orjson.loads(base64.urlsafe_b64decode(payload.encode() + b"=="))
        found, shown = keys.get(token), bytes.fromhex(mac)
    except (ValueError, TypeError, binascii.Error):
        return None
    if found is None or not hmac.compare_digest(hmac.digest(found, payload.encode(), "sha256"), shown):
        return None
    return Session(token, person, ends, began, id) if now < ends else None


def name_problem(name: str) -> str | None:
    """Why `name` is no name of a person; None where it may be one. It is shown to others, in logs and in pages."""
    if not name.strip():
        return "is empty: the audit shows who made a change"
    if len(name) > MAX_NAME:
        return f"is longer than {MAX_NAME} characters"
    if any(
        letter in _SPECIAL or unicodedata.category(letter) in _UNSEEN
        for letter in name + unicodedata.normalize("NFKC", name)  # a wide parenthesis looks like one
    ):
        return "has a character that names have not: leave out @ ( ) < > & quotes, backslashes and control characters"
    return None
