"""Models as clients list them: entries in OpenAI's format and in Anthropic's, and the pages of the latter.

    fact                OpenAI's format                             Anthropic's
    its name            `id`                                        `id`
    for people          `name` *                                    `display_name`: the id where nothing is configured
    context window      `max_model_len`, `context_length` *         `max_input_tokens`
    output cap          `max_output_tokens` *                       `max_tokens`
    capabilities        `capabilities` *                            `capabilities`

    * only for a model that the config lists; all else of the entry is the node's own

In Anthropic's format pages are cut by name: a page begins behind `after_id` also where that model has left meanwhile.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from gateway.core.errors import InvalidRequest
from gateway.core.models import UNDESCRIBED, ModelDescription
from gateway.core.thinking.policy import Policy

USUAL_LIMIT, MOST_LIMIT = 20, 1000
"""Models of a page, as Anthropic has it."""

LAST_SECOND = 253402300799
"""The end of the year 9999: a node's `created` beyond it is not believed."""

EFFORTS = ("low", "medium", "high", "xhigh", "max")

LIFECYCLES = ("active", "deprecated", "retired")
"""What the list may be narrowed to; all models here are active."""


class OfferedModel(NamedTuple):
    """A model that the caller may use. `card`: a node's own entry. `described` None: the config does not list it.
    `policy`: the rules for the caller on it."""

    name: str
    card: Mapping[str, Any]
    window: int | None
    described: ModelDescription | None
    policy: Policy | None

    @property
    def output_cap(self) -> int | None:
        """The most tokens of an answer; None where no rule says."""
        output = None if self.policy is None else self.policy.output
        most = None if output is None else output.rules.max_tokens
        return most if most is None or self.window is None else min(most, self.window)

    @property
    def thinks(self) -> bool:
        """Whether it can think, and may for the caller."""
        thinking = None if self.policy is None else self.policy.thinking
        return (self.described or UNDESCRIBED).thinking and (thinking is None or thinking.rules.mode != "forbidden")


class PageRequest(NamedTuple):
    """Which page of the list: at most `limit` models right behind `after`, or right before `before`."""

    limit: int = USUAL_LIMIT
    after: str | None = None
    before: str | None = None
    active: bool = True
    """Whether models in use are asked for."""


def read_page_request(query: Sequence[tuple[str, str]]) -> PageRequest:
    """Raises `InvalidRequest` for values that stand for no page. Parameters that are not known do nothing."""
    given = dict(query)
    after, before = given.get("after_id"), given.get("before_id")
    if after is not None and before is not None:
        raise _refused("before_id", "Send after_id or before_id, not both.")
    for name, cursor in (("after_id", after), ("before_id", before)):
        if cursor == "":
            raise _refused(name, f"{name} is empty: send the id of a model, or leave it out.")
    return PageRequest(_limit(given.get("limit")), after, before, _active(query))


def _limit(text: str | None) -> int:
    if text is None:
        return USUAL_LIMIT
    if text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MOST_LIMIT:
        return int(text)
    raise _refused("limit", f"limit is {text[:40]!r}: send a whole number from 1 to {MOST_LIMIT}.")


def _active(query: Sequence[tuple[str, str]]) -> bool:
    stages = [value for name, value in query if name in ("lifecycle", "lifecycle[]")]
    for stage in stages:
        if stage not in LIFECYCLES:
            raise _refused("lifecycle", f"lifecycle is {stage[:40]!r}: send {', '.join(LIFECYCLES)}.")
    return not stages or "active" in stages


def _refused(param: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, param=param, code="invalid_page")


def openai_view(model: OfferedModel) -> dict[str, Any]:
    """The node's own entry under the name that clients use, and what the config adds to it."""
    view = {**model.card, "id": model.name}
    told = model.described
    if told is None:
        return view
    if told.display_name is not None:
        view["name"] = told.display_name
    if model.window is not None:
        view["context_length"] = model.window
    if model.output_cap is not None:
        view["max_output_tokens"] = model.output_cap
    view["capabilities"] = {
        "thinking": model.thinks,
        "tools": told.tools,
        "structured_outputs": told.structured_outputs,
        "images": told.images,
    }
    return view


def anthropic_view(model: OfferedModel) -> dict[str, Any]:
    """A `ModelInfo` of Anthropic's SDK, with all fields that it has in version 2.14."""
    told = model.described or UNDESCRIBED
    return {
        "type": "model",
        "id": model.name,
        "display_name": told.display_name or model.name,
        "created_at": _created(model.card.get("created")),
        "lifecycle": "active",
        "line": None,
        "deprecated_at": None,
        "retires_at": None,
        "max_input_tokens": model.window,
        "max_tokens": model.output_cap,
        "capabilities": _capabilities(told, model.thinks),
    }


def anthropic_page(models: Sequence[OfferedModel], asked: PageRequest) -> dict[str, Any]:
    """One page of `models`, which are in the order of their names."""
    found = list(models) if asked.active else []
    if asked.before is not None:
        found = [model for model in found if model.name < asked.before]
        page, more = found[-asked.limit :], len(found) > asked.limit
    else:
        found = [model for model in found if asked.after is None or model.name > asked.after]
        page, more = found[: asked.limit], len(found) > asked.limit
    return {
        "data": [anthropic_view(model) for model in page],
        "has_more": more,
        "first_id": page[0].name if page else None,
        "last_id": page[-1].name if page else None,
    }


def _created(seconds: object) -> str:
    """As RFC 3339; the epoch where the node does not say, as Anthropic has it."""
    known = seconds if type(seconds) is int and 0 <= seconds <= LAST_SECOND else 0
    return datetime.fromtimestamp(known, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _capabilities(told: ModelDescription, thinks: bool) -> dict[str, Any]:
    def supported(yes: bool, **more: bool) -> dict[str, Any]:
        return {"supported": yes} | {name: {"supported": value} for name, value in more.items()}

    types = {"adaptive": thinks, "between_tools": False, "disabled": True, "enabled": thinks}
    return {
        "batch": supported(False),
        "citations": supported(False),
        "code_execution": supported(False),
        "context_management": supported(False),
        "effort": supported(thinks, **dict.fromkeys(EFFORTS, thinks)),
        "image_input": supported(told.images),
        "pdf_input": supported(False),
        "server_tools": supported(False, code_execution=False, web_search=False),
        "structured_outputs": supported(told.structured_outputs),
        "thinking": supported(thinks) | {"types": {name: supported(value) for name, value in types.items()}},
        "tools": supported(told.tools),
    }
