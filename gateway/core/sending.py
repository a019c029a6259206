"""One attempt as one node gets it: what is sent, and how what comes back becomes the client's answer.

The plan is the same for every node, the sending is not: a node that does not hold a thinking budget is asked
otherwise than one that does. Three things can stand between the node's bytes and the client's, and they compose:
pass-through (`Sending` itself), the enforcement of a budget, and the translation of another dialect to chat.
"""

from gateway.core.abilities import Abilities
from gateway.core.assembly import Assembly
from gateway.core.bodies import dump, parse_body
from gateway.core.budget import Enforcement
from gateway.core.budget_terms import set_terms
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


class Enforced(Sending):
    """A chat or completions request whose thinking budget the gateway holds itself."""

    __slots__ = ("_terms",)

    def __init__(self, plan: Plan, body: bytes, budget: int, abilities: Abilities) -> None:
        self._terms, first = set_terms(
            parse_body(body),
            chat=plan.dialect.name == "chat",
            budget=budget,
            max_tokens=plan.max_tokens,
            abilities=abilities,
            stream=plan.ask.stream,
            hide=plan.hide,
        )
        super().__init__(plan.dialect.path, dump(first), plan.ask, plan.dialect)

    def watch(self) -> EventWatch:
        return Enforcement(self._terms)


class EnforcedPlain(Enforced):
    """The same for a client that asked for no stream."""

    __slots__ = ()

    assembles = True

    def watch(self) -> EventWatch:
        return Assembly(Enforcement(self._terms), self._terms.chat)


def sending_to(plan: Plan, node: bytes, abilities: Abilities) -> Sending:
    """How `plan` is sent to the node tagged `node`, which can do what `abilities` say.

    Raises `InvalidRequest` where that node cannot serve it as planned.
    """
    budget = plan.thinking_budget
    body = plan.body_for(node)
    if budget is None or _holds(plan, abilities):
        return Sending(plan.dialect.path, body, plan.ask, plan.dialect)
    way = Enforced if plan.ask.stream else EnforcedPlain
    return way(plan, body, budget, abilities)


def _holds(plan: Plan, abilities: Abilities) -> bool:
    """Whether the node keeps to the plan's budget by itself, told in the client's own dialect."""
    if plan.dialect.name not in ("chat", "completions"):
        return True
    if plan.thinking is False and plan.dialect.name == "chat":  # the template does it
        return abilities.native_off is not False
    return bool(abilities.native_budget)
