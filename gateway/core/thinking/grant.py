"""What a plan grants to an ask: how many tokens, and how much of them may be thinking."""

Headers = tuple[tuple[bytes, bytes], ...]

GRANT_HEADERS = (
    "x-fleetgate-thinking",
    "x-fleetgate-thinking-budget",
    "x-fleetgate-max-tokens",
    "x-fleetgate-reasoning",
)
"""What a grant can tell; web pages have to be allowed to read them."""


class Grant:
    """`max_tokens` and `thinking_budget` as in `Plan`, both in tokens.

    `thinking` is True or False where the switch is to be set, None where it stays as the model has it. `effort` and
    `low` are what the client asked for (see `Intent`). `hide` has the gateway take reasoning out of the answer.
    `headers` tell the client what was applied.
    """

    __slots__ = ("effort", "headers", "hide", "low", "max_tokens", "thinking", "thinking_budget")

    def __init__(
        self,
        max_tokens: int | None = None,
        thinking: bool | None = None,
        thinking_budget: int | None = None,
        effort: str | None = None,
        low: bool = False,
        hide: bool = False,
        headers: Headers = (),
    ) -> None:
        self.max_tokens = max_tokens
        self.thinking = thinking
        self.thinking_budget = thinking_budget
        self.effort = effort
        self.low = low
        self.hide = hide
        self.headers = headers

    def hidden(self) -> "Grant":
        """The same with reasoning taken out of the answer."""
        return Grant(self.max_tokens, self.thinking, self.thinking_budget, self.effort, self.low, True, self.headers)

    def with_headers(self, headers: Headers) -> "Grant":
        return Grant(self.max_tokens, self.thinking, self.thinking_budget, self.effort, self.low, self.hide, headers)


def applied(value: str, source: str, asked: str | None) -> bytes:
    """`2048; source=tenant-max; asked=8192`: what was applied, why, and what the client wanted where it is not that."""
    text = f"{value}; source={source}"
    return (text if asked is None or asked == value else f"{text}; asked={asked}").encode()
