"""The proven capabilities of a node. The fleet finds them out; `node_request` decides by them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a node can do; None where that is not known yet, and not relied on.

    `native_budget`: it ends thinking at a budget. `native_off`: it answers without thinking where that is off.
    `version`: vLLM's, as numbers. `splits_reasoning`: its reasoning parser takes thinking out of the content.
    `think_start`, `think_end`: the token ids of the markers, empty where they are not known. `marker_shown`: raw text
    has the markers in it, since they are not special tokens. `window`: tokens of prompt and answer together. `pace`:
    tokens that an event of its thinking has at least. `stores_responses`: a later request can continue an earlier
    response.
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
    stores_responses: bool | None = None


UNKNOWN = Capabilities()
BELIEVED = Capabilities(native_budget=True)
"""The capabilities of a node that is not asked to prove any."""
