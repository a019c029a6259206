"""What a plan grants to an ask: how many tokens, and how much of them may be thinking."""

from typing import NamedTuple

Headers = tuple[tuple[bytes, bytes], ...]


class Grant(NamedTuple):
    """`max_tokens` and `thinking_budget` as in `Plan`, both in tokens.

    `thinking` is True or False where the switch is to be set, None where it stays as the model has it. `effort` and
    `low` are what the client asked for (see `Intent`). `hide` has the gateway take reasoning out of the answer.
    `told` are the headers that tell the client what was applied.
    """

    max_tokens: int | None = None
    thinking: bool | None = None
    thinking_budget: int | None = None
    effort: str | None = None
    low: bool = False
    hide: bool = False
    told: Headers = ()
