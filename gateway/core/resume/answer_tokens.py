"""The token ids of one answer, as far as the client has seen their text."""

import re

from gateway.core.errors import BadUpstreamResponse

_IDS = re.compile(rb"(?:\d+(?:,\d+)*)?")


class AnswerTokens:
    """Ids are kept as JSON writes them, each event's behind its bracket: `[12` and `[13,14`. That is about seven bytes
    a token, and one slice an event.

    `held`: ids whose text the node has not sent yet: half a character, a tool call that its parser holds back. Where
    another node tells that text they are kept (`keep`); else a continuation makes them again (`drop_held`).
    """

    __slots__ = ("held", "shown")

    def __init__(self) -> None:
        self.shown = bytearray()
        self.held = bytearray()

    def hold(self, ids: bytes) -> None:
        """The node sent `ids`, without their text."""
        self.held += b"[" + ids

    def show(self, ids: bytes) -> None:
        """The node sent text up to the last of `ids`."""
        if self.held:
            self.shown += self.held
            self.held.clear()
        if ids:
            self.shown += b"[" + ids

    def drop_held(self) -> bytes:
        """Do without the ids that were held; returns them, with commas between. Raises as `ids`."""
        dropped = bytes(self.held[1:]).replace(b"[", b",")
        self.held.clear()
        return _checked(dropped)

    def cut_behind(self, marker: tuple[int, ...]) -> int:
        """Do without the ids behind the first `marker`; returns their number, -1 where it does not occur."""
        ids = self.ids()
        at = find(ids, marker)
        if at < 0:
            return -1
        end = at + len(",".join(map(str, marker)))
        rest = ids[end:].lstrip(b",")
        before = ids[:at].rstrip(b",")
        self.shown[:] = (b"[%b" % before if before else b"") + b"[" + ids[at:end]
        return rest.count(b",") + 1 if rest else 0

    def ids(self) -> bytes:
        """Those that are shown, with commas between. Raises `BadUpstreamResponse` where they are no token ids."""
        return _checked(bytes(self.shown[1:]).replace(b"[", b","))

    @property
    def count(self) -> int:
        """The number of those that are shown."""
        return _count(self.shown)

    def place_of(self, marker: tuple[int, ...]) -> int | None:
        """The number of the shown ids in front of the first `marker`; None where it does not occur."""
        ids = bytes(self.shown[1:]).replace(b"[", b",")
        at = find(ids, marker)
        return None if at < 0 else ids.count(b",", 0, at)

    @property
    def lone(self) -> bool:
        """Whether the last event that was shown had one id at most."""
        return b"," not in self.shown[self.shown.rfind(b"[") + 1 :]

    def behind(self, start: int, dropped: int) -> bytes:
        """Those from number `start` on, shown and held, but for the last `dropped`; with commas between. Raises as
        `ids`."""
        every = bytes(self.shown + self.held).replace(b"[", b",").split(b",")[1:]
        return _checked(b",".join(every[start : len(every) - dropped]))

    def keep(self, dropped: int) -> bytes:
        """Count those that were held as shown, and do without the last `dropped` of all; returns these. As
        `drop_held`."""
        every = self.shown + self.held
        end = len(every)
        for _ in range(dropped):
            end = max(every.rfind(b"[", 0, end), every.rfind(b",", 0, end), 0)
        self.shown[:] = every[:end]
        self.held.clear()
        return _checked(bytes(every[end + 1 :]).replace(b"[", b","))

    @property
    def made(self) -> int:
        """The number of all, those that are held included."""
        return _count(self.shown) + _count(self.held)


def _checked(ids: bytes) -> bytes:
    if _IDS.fullmatch(ids) is None:
        raise BadUpstreamResponse("The node sent token ids that are none.")
    return ids


def _count(kept: bytearray) -> int:
    return kept.count(b"[") + kept.count(b",")


def find(ids: bytes, marker: tuple[int, ...]) -> int:
    """The offset of the first `marker` in `ids` (as JSON writes them); -1 where it does not occur."""
    if not marker:
        return -1
    return (b"," + ids + b",").find(b",%b," % ",".join(map(str, marker)).encode())


def ends_with(ids: bytes, marker: tuple[int, ...]) -> bool:
    """Whether `marker` stands at the end of `ids` (as JSON writes them)."""
    return bool(marker) and (b"," + ids).endswith(b",%b" % ",".join(map(str, marker)).encode())
