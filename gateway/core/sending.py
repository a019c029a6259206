"""One attempt as one node gets it: what is sent, and how what comes back becomes the client's answer.

The plan is the same for every node, the sending is not: a node that does not hold a thinking budget is asked
otherwise than one that does. Three things can stand between the node's bytes and the client's, and they compose:
pass-through (`Sending` itself), the enforcement of a budget, and the translation of another dialect to chat.
"""

from gateway.core.abilities import Abilities
from gateway.core.dialects.base import Ask, Dialect
from gateway.core.dialects.watch import EventWatch
from gateway.core.plan import Plan
from gateway.core.usage import Usage


class Sending:
    """What came goes on as it came. The other ways inherit from this one and say what they do otherwise.

    `path` and `body` are the node's, `ask` and `dialect` the client's.
    """

    __slots__ = ("ask", "body", "dialect", "path")

    assembles = False
    """Whether the node streams and the client gets one plain answer: then a watch's `feed` gives nothing, and its
    `release` the whole body."""

    rewrites = False
    """Whether `plain` changes what it is given: then the node's answer is held until it is whole, however long."""

    def __init__(self, path: str, body: bytes, ask: Ask, dialect: Dialect) -> None:
        self.path = path
        self.body = body
        self.ask = ask
        self.dialect = dialect

    def watch(self) -> EventWatch:
        """A fresh follower for a streamed answer: the node's bytes in, the client's bytes out."""
        return self.dialect.watch(self.ask)

    def plain(self, status: int, body: bytes) -> bytes:
        """The client's body for a node's (or an assembled) plain answer, an error's included."""
        return body

    def usage(self, body: bytes) -> Usage | None:
        """What a plain answer of the node says that it used."""
        return self.dialect.usage(body)


def sending_to(plan: Plan, node: bytes, abilities: Abilities) -> Sending:
    """How `plan` is sent to the node tagged `node`, which can do what `abilities` say.

    Raises `InvalidRequest` where that node cannot serve it as planned.
    """
    return Sending(plan.dialect.path, plan.body_for(node), plan.ask, plan.dialect)
