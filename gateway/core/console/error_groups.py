"""Errors that are alike, counted together: by their code, status, model and node."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from gateway.core.telemetry.request_stats import RequestStats

KEPT = 100
"""Groups; beyond it the one that is quiet for the longest time is forgotten."""

NAMED = 8
"""Tenants that a group names."""

NONE = "-"


class ErrorGroup(NamedTuple):
    """`name` is its key. Times are seconds since 1970. `text`, `request_id` and `agent` (what its client says that it
    is) are those of the last one."""

    name: str
    code: str
    status: int
    model: str
    node: str
    times: int
    first: float
    last: float
    text: str
    tenants: tuple[str, ...]
    request_id: str
    agent: str

    def plus(self, other: "ErrorGroup") -> "ErrorGroup":
        """Both together: the same group, as two processes saw it."""
        late = self if self.last >= other.last else other
        return late._replace(
            times=self.times + other.times,
            first=min(self.first, other.first),
            tenants=tuple(dict.fromkeys((*self.tenants, *other.tenants)))[:NAMED],
        )


class ErrorGroups:
    """Those of one process. What a client did wrong has no text: it may quote the request."""

    def __init__(self) -> None:
        self._groups: dict[str, ErrorGroup] = {}

    def note(self, ended: Iterable[RequestStats]) -> None:
        """Add the requests of `ended` that were not served."""
        for event in ended:
            if event.ending != "ok" and event.level != "info":
                self._add(_group_of(event))

    def _add(self, one: ErrorGroup) -> None:
        known = self._groups.pop(one.name, None)
        self._groups[one.name] = one if known is None else known.plus(one)
        if len(self._groups) > KEPT:
            del self._groups[next(iter(self._groups))]

    @property
    def groups(self) -> list[ErrorGroup]:
        """The latest at the end."""
        return list(self._groups.values())


def add_up_groups(groups: Iterable[ErrorGroup]) -> list[ErrorGroup]:
    """Those of several processes; the latest first, at most `KEPT`."""
    sums: dict[str, ErrorGroup] = {}
    for each in groups:
        known = sums.get(each.name)
        sums[each.name] = each if known is None else known.plus(each)
    return sorted(sums.values(), key=lambda group: -group.last)[:KEPT]


def read_groups(spelled: Iterable[Any]) -> list[ErrorGroup]:
    """Groups as another process sent them, as lists. Raises ValueError or TypeError where they are none."""
    return [_read(*each) for each in spelled]


def _read(
    name: Any,
    code: Any,
    status: Any,
    model: Any,
    node: Any,
    times: Any,
    first: Any,
    last: Any,
    text: Any,
    tenants: Any,
    request_id: Any,
    agent: Any,
) -> ErrorGroup:
    return ErrorGroup(
        name=str(name),
        code=str(code),
        status=int(status),
        model=str(model),
        node=str(node),
        times=int(times),
        first=float(first),
        last=float(last),
        text=str(text),
        tenants=tuple(map(str, tenants)),
        request_id=str(request_id),
        agent=str(agent),
    )


def _group_of(event: RequestStats) -> ErrorGroup:
    model, node = event.model or NONE, event.node or NONE
    agent = event.user_agent.decode("latin-1") if event.user_agent is not None else ""
    return ErrorGroup(
        name=f"{event.status} {event.ending} {model} {node}",
        code=event.ending,
        status=event.status,
        model=model,
        node=node,
        times=1,
        first=event.at,
        last=event.at,
        text=event.error or "",
        tenants=(event.tenant or NONE,),
        request_id=event.request_id,
        agent=agent,
    )
