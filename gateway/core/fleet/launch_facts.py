"""What a node's record says of how it was started, for operators: nothing is decided by it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LONGEST = 128
"""Characters of a text that are shown."""


@dataclass(frozen=True, slots=True)
class LaunchFacts:
    """None: the record does not say, or not in a way that can be read. `max_model_len` in tokens; `price_kind` is
    on_demand, reserved or spot; `warm_up` and `thinking_budget` are what its launcher found before it was ready."""

    profile: str | None = None
    vllm_version: str | None = None
    price_kind: str | None = None
    max_model_len: int | None = None
    warm_up: bool | None = None
    thinking_budget: str | None = None


def read_launch_facts(record: Mapping[str, Any]) -> LaunchFacts:
    """The facts of a record. A node serves whatever they say: what cannot be read is left out."""
    capacity, price, canary = (_members(record.get(name)) for name in ("capacity", "price", "canary"))
    length, warm_up = capacity.get("max_model_len"), canary.get("warm_up")
    return LaunchFacts(
        profile=_text(record.get("profile")),
        vllm_version=_text(record.get("vllm_version")),
        price_kind=_text(price.get("kind")),
        max_model_len=length if isinstance(length, int) and not isinstance(length, bool) else None,
        warm_up=warm_up if isinstance(warm_up, bool) else None,
        thinking_budget=_text(canary.get("thinking_budget")),
    )


def _members(told: Any) -> Mapping[str, Any]:
    return told if isinstance(told, dict) else {}


def _text(told: Any) -> str | None:
    return told[:LONGEST] if isinstance(told, str) and told.isprintable() else None
