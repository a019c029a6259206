"""What a node has proven that it can do. The fleet finds it out, `sending` decides by it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capabilities:
    """None stands for not known yet: then nothing is relied on.

    `native_budget`: it ends thinking at a budget by itself. `native_off`: with thinking off it answers without any.
    `version`: vLLM's, as numbers. `splits_reasoning`: its
    reasoning parser takes the thinking out of the content. `think_start`, `think_end`: the token ids of the
    markers, empty where they are not known. `marker_shown`: raw text shows them (they are not special tokens).
    `window`: tokens of prompt and answer together. `pace`: tokens in an event of its thinking, at least.
    """

    native_budget: bool | None = None
    native_off: bool | None = None
    version: tuple[int, ...] | None = None
    splits_reasoning: bool | None = None
    think_start: tuple[int, ...] = ()
    think_end: tuple[int, ...] = ()
    marker_shown: bool | None = None
    window: int | None = None
    pace: float = 1.0


UNKNOWN = Capabilities()
BELIEVED = Capabilities(native_budget=True)
"""Of a node that is not asked to prove anything."""
