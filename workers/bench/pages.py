"""The node's own counts, read from /metrics before and after (names: vLLM 0.22 to 0.33)."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

import httpx
from prometheus_client.parser import text_string_to_metric_families

COUNTERS = (
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
    "vllm:external_prefix_cache_queries_total",
    "vllm:external_prefix_cache_hits_total",
    "vllm:num_preemptions_total",
    "vllm:spec_decode_num_drafts_total",
    "vllm:spec_decode_num_draft_tokens_total",
    "vllm:spec_decode_num_accepted_tokens_total",
)
GAUGES = ("vllm:num_requests_running", "vllm:num_requests_waiting")
PAGE_SECONDS = 10.0
LONGEST_PAGE = 20_000_000


@dataclass(frozen=True, slots=True)
class NodePage:
    """Sums over all engines of the node at `at` (monotonic seconds). A name that the page lacks is not in `values`."""

    at: float
    values: Mapping[str, float]

    @property
    def requests(self) -> int:
        """Running and waiting."""
        return int(sum(self.values.get(name, 0.0) for name in GAUGES))


@dataclass(frozen=True, slots=True)
class NodeCounts:
    """What the node counted between two pages. None: it does not tell, or began afresh in between.

    `hit_rate` and `draft_acceptance` are 0 to 1; `accepted_length` is the mean number of tokens of a step, the model's
    own one included.
    """

    generated: float | None
    prompts: float | None
    hit_rate: float | None
    external_hit_rate: float | None
    preemptions: float | None
    draft_acceptance: float | None
    accepted_length: float | None


def read_page(text: str, at: float) -> NodePage:
    """The page's counters and gauges. What is no line of Prometheus' format is an empty page."""
    values: dict[str, float] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if (sample.name in COUNTERS or sample.name in GAUGES) and isfinite(sample.value):
                    values[sample.name] = values.get(sample.name, 0.0) + float(sample.value)
    except ValueError:
        return NodePage(at, {})
    return NodePage(at, values)


async def get_page(client: httpx.AsyncClient) -> NodePage | None:
    """The node's page now; None where it has none, or does not answer."""
    try:
        response = await client.get("/metrics", timeout=PAGE_SECONDS)
    except httpx.HTTPError:
        return None
    at = time.monotonic()
    if not response.is_success or len(response.content) > LONGEST_PAGE:
        return None
    page = read_page(response.text, at)
    return page if page.values else None


def counts_between(first: NodePage | None, last: NodePage | None) -> NodeCounts:
    """From an earlier page to a later one."""
    grown = _grown(first, last)
    drafts, accepted = (grown.get(f"vllm:spec_decode_num_{name}_total") for name in ("drafts", "accepted_tokens"))
    return NodeCounts(
        generated=grown.get("vllm:generation_tokens_total"),
        prompts=grown.get("vllm:prompt_tokens_total"),
        hit_rate=_share(grown, "vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"),
        external_hit_rate=_share(
            grown, "vllm:external_prefix_cache_hits_total", "vllm:external_prefix_cache_queries_total"
        ),
        preemptions=grown.get("vllm:num_preemptions_total"),
        draft_acceptance=_share(
            grown, "vllm:spec_decode_num_accepted_tokens_total", "vllm:spec_decode_num_draft_tokens_total"
        ),
        accepted_length=1 + accepted / drafts if drafts and accepted is not None else None,
    )


def _grown(first: NodePage | None, last: NodePage | None) -> dict[str, float]:
    if first is None or last is None:
        return {}
    both = {name for name in COUNTERS if name in first.values and name in last.values}
    grown = {name: last.values[name] - first.values[name] for name in both}
    return {} if any(value < 0 for value in grown.values()) else grown


def _share(grown: Mapping[str, float], part: str, whole: str) -> float | None:
    return grown[part] / grown[whole] if part in grown and grown.get(whole) else None
