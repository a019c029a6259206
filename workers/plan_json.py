"""Plans as plain data."""

from typing import Any

from workers.download_plan import download_bytes
from workers.measured import differences
from workers.plan import CostAnswer, Plan


def plan_json(plan: Plan) -> dict[str, Any]:
    """A plan as plain data: GB decimal, US dollars, tokens."""
    memory, profile = plan.memory, plan.profile
    return {
        "profile": profile.name,
        "title": profile.title,
        "role": profile.role,
        "source": profile.source,
        "fits": memory.fits,
        "verdict": memory.verdict,
        "memory_gb": {
            "node": memory.node_gb,
            "node_by_nvml": memory.nvml_gb,
            "usable": memory.usable_gb,
            "usable_by_nvml": memory.nvml_usable_gb,
            "weights": memory.weights_gb,
            "formula": memory.formula_gb,
            "checkpoint": memory.checkpoint_gb,
            "vendor_minimum": memory.vendor_minimum_gb,
            "needed": memory.needed_gb,
            "kv_budget": memory.kv_budget_gb,
            "total": memory.total_gb,
            "headroom": memory.headroom_gb,
        },
        "disk_gb": download_bytes(profile) / 1e9,
        "sequences": {
            "context": memory.context,
            "planned": memory.sequences,
            "max": memory.max_sequences,
            "kv_bytes_per_token": memory.sequence.kv_bytes_per_token,
            "state_bytes": memory.sequence.state_bytes,
            "state_copies": memory.sequence.state_copies,
        },
        "costs": [_cost_json(answer) for answer in plan.costs],
        "throughput": [
            {**speed.model_dump(mode="json"), "differences": list(differences(profile, speed))}
            for speed in profile.throughput
        ],
        "host_memory_gb": profile.host_memory_gb,
        "rather": None if profile.rather is None else profile.rather.model_dump(mode="json"),
        "advice": list(plan.advice),
    }


def _cost_json(answer: CostAnswer) -> dict[str, Any]:
    cost = answer.cost
    return {
        "kind": cost.kind,
        "source": cost.source,
        "date": cost.date,
        "age_days": cost.age_days,
        "usd_per_hour": cost.hourly,
        "usd_per_month": cost.monthly,
        "tokens_per_second": cost.tokens_per_second,
        "usd_per_million_tokens": cost.per_million,
        "tokens_per_month_at_most": cost.tokens_per_month,
        "break_even": [
            {
                "api": None if point.api is None else point.api.model_dump(exclude={"model"}),
                "api_usd_per_million": point.api_usd_per_million,
                "tokens_per_month": point.tokens_per_month,
                "nodes": point.nodes,
                "reachable": point.reachable,
                "needed_tokens_per_second": point.needed_tokens_per_second,
            }
            for point in answer.break_evens
        ],
    }
