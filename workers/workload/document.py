"""Plans of a workload as plain data."""

from dataclasses import asdict
from typing import Any

from workers.workload.answer import WorkloadPlan


def workload_json(plan: WorkloadPlan) -> dict[str, Any]:
    """Tokens, seconds, US dollars, decimal GB."""
    sizing, state = plan.sizing, plan.sizing.busiest
    return {
        "profile": sizing.profile.name,
        "workload": sizing.workload.model_dump(),
        "nodes": sizing.nodes,
        "nodes_given": sizing.given,
        "needed": dict(sizing.needed),
        "decided_by": list(sizing.binding),
        "speed": {
            "prefill_tokens_per_second": sizing.speed.prefill,
            "prefill_source": sizing.speed.prefill_source,
            "decode": [asdict(point) for point in sizing.speed.points],
            "decode_source": sizing.speed.decode_source,
            "places": sizing.speed.places,
        },
        "busiest_node": {
            **asdict(state),
            "first_token": state.first_token,
            "running": state.running,
            "held_gb": sizing.held_gb,
            "room_gb": sizing.room_gb,
        },
        "turns_per_second": sizing.turns_per_second,
        "turns_per_month": sizing.turns_per_month,
        "prices": [price.model_dump() for price in plan.prices],
        "mixes": [{**asdict(mix), "usd_per_month": mix.usd} for mix in plan.mixes],
        "preemption": {**asdict(plan.preemption), "tokens": plan.preemption.tokens},
        "preemptions_per_day": plan.preemptions_per_day,
        "apis": [{"api": cost.api.model_dump(), "usd_per_month": cost.usd} for cost in plan.apis],
        "notes": list(sizing.notes),
    }
