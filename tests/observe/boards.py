"""Grafana's dashboards, made of a table: `python -m tests.observe.boards` writes docker/grafana/dashboards/."""

import json
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parents[2] / "docker" / "grafana" / "dashboards"
RATE = "$__rate_interval"
SOURCE = {"type": "prometheus", "uid": "prometheus"}


class Panel(NamedTuple):
    """`queries`: expressions, each with its legend. `unit` is Grafana's. `kind`: stat, timeseries or table."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    exemplars: bool = False


class Board(NamedTuple):
    """`variables`: each with the metric and label that its values come from."""

    name: str
    title: str
    panels: tuple[Panel, ...]
    variables: tuple[tuple[str, str], ...] = (("model", "fleetgate_model_ready"),)


def _rate(metric: str, by: str, match: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{{{match}}}[{RATE}]))" if match else f"sum by ({by}) (rate({metric}[{RATE}]))"


def _quantiles(metric: str, match: str, *shares: float) -> tuple[tuple[str, str], ...]:
    return tuple(
        (
            f"histogram_quantile({share}, sum by (le, model) (rate({metric}_bucket{{{match}}}[{RATE}])))",
            f"p{share * 100:g} {{{{model}}}}",
        )
        for share in shares
    )


OF_MODEL = 'model=~"$model"'
OF_TENANT = 'tenant=~"$tenant"'
SLOW = (
    f'1 - sum by (model) (rate(fleetgate_ttft_seconds_bucket{{stream="true", le="10.0", {OF_MODEL}}}[{RATE}])) '
    f'/ (sum by (model) (rate(fleetgate_ttft_seconds_count{{stream="true", {OF_MODEL}}}[{RATE}])) > 0)'
)


def _share(part: str, whole: str, by: str, match: str) -> str:
    """Of tokens."""
    total = _rate("fleetgate_tokens_total", by, f'kind="{whole}", {match}')
    some = _rate("fleetgate_tokens_total", by, f'kind="{part}", {match}')
    return f"{some} / ({total} > 0)"


FLEET = Board(
    "fleet",
    "fleetgate: fleet",
    (
        Panel("Nodes ready", "short", (("sum(max by (node) (fleetgate_node_ready) > bool 0)", ""),), "stat"),
        Panel("Nodes out", "short", (("count(max by (node) (fleetgate_node_ready) == 0) or vector(0)", ""),), "stat"),
        Panel("Open requests", "short", (("sum(fleetgate_open_requests)", ""),), "stat"),
        Panel("Waiting", "short", (("sum(fleetgate_waiting_requests) or vector(0)", ""),), "stat"),
        Panel("Gateways", "short", (("max(fleetgate_live_gateways)", ""),), "stat"),
        Panel(
            "Models without a node",
            "short",
            (("count(max by (model) (fleetgate_model_ready) == 0) or vector(0)", ""),),
            "stat",
        ),
        Panel("Requests", "reqps", ((_rate("fleetgate_requests_total", "model", OF_MODEL), "{{model}}"),)),
        Panel(
            "Errors by ending",
            "reqps",
            ((_rate("fleetgate_requests_total", "ending", f'ending!~"ok|client_gone", {OF_MODEL}'), "{{ending}}"),),
        ),
        Panel("Tokens", "short", ((_rate("fleetgate_tokens_total", "kind", OF_MODEL), "{{kind}} a second"),)),
        Panel(
            "Requests on nodes, and their bound",
            "short",
            (
                ("sum by (node) (fleetgate_node_in_flight)", "{{node}}"),
                ("max by (node) (fleetgate_node_max_concurrency) > 0", "bound of {{node}}"),
            ),
        ),
        Panel("Use of KV caches", "percentunit", (("max by (node) (fleetgate_node_kv_cache_used_ratio)", "{{node}}"),)),
        Panel(
            "Prompt tokens found in caches",
            "percentunit",
            ((_share("cached", "input", "model", OF_MODEL), "{{model}}"),),
        ),
        Panel("Waiting inside nodes", "short", (("max by (node) (fleetgate_node_waiting_requests)", "{{node}}"),)),
        Panel(
            "Tries that failed",
            "reqps",
            ((_rate("fleetgate_attempts_total", "node, outcome", 'outcome!="passed"'), "{{node}} {{outcome}}"),),
        ),
        Panel(
            "Resumes",
            "reqps",
            ((_rate("fleetgate_resumes_total", "cause, outcome", OF_MODEL), "{{cause}}: {{outcome}}"),),
        ),
        Panel("Reasons of the choice", "reqps", ((_rate("fleetgate_routes_total", "reason", OF_MODEL), "{{reason}}"),)),
        Panel(
            "Breakers that are not closed",
            "short",
            (
                (
                    'sum by (node, state) (fleetgate_node_breaker{state!="closed"}) > 0 or vector(0)',
                    "{{node}} {{state}}",
                ),
            ),
        ),
        Panel(
            "Nodes taken out in an hour",
            "short",
            (("sum by (node, cause) (increase(fleetgate_node_taken_out_total[1h]))", "{{node}} {{cause}}"),),
        ),
        Panel("Nodes that hold budgets", "short", (("min by (node) (fleetgate_node_holds_budgets)", "{{node}}"),)),
        Panel(
            "Canaries in an hour",
            "short",
            (("sum by (node, result) (increase(fleetgate_canaries_total[1h]))", "{{node}} {{result}}"),),
        ),
        Panel(
            "CPU of gateways", "percentunit", ((f"rate(fleetgate_process_cpu_seconds_total[{RATE}])", "{{instance}}"),)
        ),
        Panel(
            "Memory of gateways",
            "bytes",
            (
                ("fleetgate_process_resident_bytes", "{{instance}}"),
                ("fleetgate_memory_held_bytes", "held for requests, {{instance}}"),
            ),
        ),
        Panel("Builds", "short", (("fleetgate_build_info", ""),), "table"),
    ),
)

TENANTS = Board(
    "tenants",
    "fleetgate: tenants and cost",
    (
        Panel("Cost of the last day", "currencyUSD", (("sum(increase(fleetgate_cost_usd_total[1d]))", ""),), "stat"),
        Panel("Requests of the last day", "short", (("sum(increase(fleetgate_requests_total[1d]))", ""),), "stat"),
        Panel(
            "Cost of the last day by tenant",
            "currencyUSD",
            ((f"sort_desc(sum by (tenant) (increase(fleetgate_cost_usd_total{{{OF_TENANT}}}[1d])))", ""),),
            "table",
        ),
        Panel(
            "Cost an hour",
            "currencyUSD",
            ((f"3600 * {_rate('fleetgate_cost_usd_total', 'tenant', OF_TENANT)}", "{{tenant}}"),),
        ),
        Panel(
            "Cost an hour by model",
            "currencyUSD",
            ((f"3600 * {_rate('fleetgate_cost_usd_total', 'model', OF_TENANT)}", "{{model}}"),),
        ),
        Panel("Requests", "reqps", ((_rate("fleetgate_requests_total", "tenant", OF_TENANT), "{{tenant}}"),)),
        Panel(
            "Output tokens",
            "short",
            ((_rate("fleetgate_tokens_total", "tenant", f'kind="output", {OF_TENANT}'), "{{tenant}} a second"),),
        ),
        Panel(
            "Input tokens",
            "short",
            ((_rate("fleetgate_tokens_total", "tenant", f'kind="input", {OF_TENANT}'), "{{tenant}} a second"),),
        ),
        Panel(
            "Thinking, of the output",
            "percentunit",
            ((_share("reasoning", "output", "tenant", OF_TENANT), "{{tenant}}"),),
        ),
        Panel(
            "Prompt tokens found in caches",
            "percentunit",
            ((_share("cached", "input", "tenant", OF_TENANT), "{{tenant}}"),),
        ),
        Panel(
            "Tokens that nobody got",
            "short",
            ((_rate("fleetgate_tokens_total", "tenant", f'kind="wasted", {OF_TENANT}'), "{{tenant}} a second"),),
        ),
        Panel(
            "Refused by limits",
            "reqps",
            ((_rate("fleetgate_requests_total", "tenant", f'status="429", {OF_TENANT}'), "{{tenant}}"),),
        ),
        Panel(
            "Failed",
            "reqps",
            (
                (
                    _rate("fleetgate_requests_total", "tenant, ending", f'status=~"5..", {OF_TENANT}'),
                    "{{tenant}} {{ending}}",
                ),
            ),
        ),
        Panel(
            "Time spent waiting",
            "s",
            (
                (
                    _rate("fleetgate_queued_seconds_total", "tenant, service_class", OF_TENANT),
                    "{{tenant}} {{service_class}}, in a second",
                ),
            ),
        ),
        Panel(
            "What is left of limits",
            "percentunit",
            ((f"min by (tenant, limit) (fleetgate_limit_left_ratio{{{OF_TENANT}}})", "{{tenant}} {{limit}}"),),
        ),
    ),
    (("tenant", "fleetgate_requests_total"),),
)

LATENCY = Board(
    "latency",
    "fleetgate: latency and thinking",
    (
        Panel(
            "Time to the first token",
            "s",
            _quantiles("fleetgate_ttft_seconds", f'stream="true", {OF_MODEL}', 0.5, 0.95, 0.99),
            exemplars=True,
        ),
        Panel("Streams that wait more than 10 s", "percentunit", ((SLOW, "{{model}}"),)),
        Panel(
            "Duration of streams",
            "s",
            _quantiles("fleetgate_request_duration_seconds", f'stream="true", {OF_MODEL}', 0.5, 0.99),
            exemplars=True,
        ),
        Panel(
            "Duration of plain answers",
            "s",
            _quantiles("fleetgate_request_duration_seconds", f'stream="false", {OF_MODEL}', 0.5, 0.99),
            exemplars=True,
        ),
        Panel("Between two tokens", "s", _quantiles("fleetgate_inter_token_seconds", OF_MODEL, 0.5, 0.99)),
        Panel("Wait for a place", "s", _quantiles("fleetgate_queue_wait_seconds", OF_MODEL, 0.5, 0.99)),
        Panel(
            "Expected wait", "s", ((f"max by (model) (fleetgate_expected_wait_seconds{{{OF_MODEL}}})", "{{model}}"),)
        ),
        Panel("Pause of resumed answers", "s", _quantiles("fleetgate_resume_pause_seconds", OF_MODEL, 0.5, 0.99)),
        Panel(
            "Tokens computed again",
            "short",
            ((_rate("fleetgate_recomputed_tokens_total", "model", OF_MODEL), "{{model}} a second"),),
        ),
        Panel(
            "Thinking, of the output", "percentunit", ((_share("reasoning", "output", "model", OF_MODEL), "{{model}}"),)
        ),
        Panel(
            "Factor of thinking budgets",
            "percentunit",
            ((f"min by (model) (fleetgate_thinking_factor{{{OF_MODEL}}})", "{{model}}"),),
        ),
        Panel(
            "Thinking ended early",
            "reqps",
            ((f"{_rate('fleetgate_thinking_ended_early_total', 'model', OF_MODEL)} or vector(0)", "{{model}}"),),
        ),
        Panel(
            "Thinking cut by the gateway",
            "reqps",
            ((f"{_rate('fleetgate_thinking_cuts_total', 'node', OF_MODEL)} or vector(0)", "{{node}}"),),
        ),
        Panel(
            "Budgets overrun",
            "reqps",
            ((f"{_rate('fleetgate_budget_overruns_total', 'node')} or vector(0)", "{{node}}"),),
        ),
        Panel(
            "Loops ended",
            "reqps",
            ((f"{_rate('fleetgate_loops_ended_total', 'part', OF_MODEL)} or vector(0)", "{{part}}"),),
        ),
        Panel(
            "Prompts counted",
            "reqps",
            ((f"{_rate('fleetgate_prompts_counted_total', 'how', OF_MODEL)} or vector(0)", "{{how}}"),),
        ),
        Panel(
            "Cached tokens, expected and found",
            "short",
            (
                (_rate("fleetgate_expected_cached_tokens_total", "model", OF_MODEL), "expected, {{model}}"),
                (_rate("fleetgate_tokens_total", "model", f'kind="cached", {OF_MODEL}'), "found, {{model}}"),
            ),
        ),
    ),
)

LIMITS = Board(
    "limits",
    "fleetgate: limits and the gateway",
    (
        Panel("Redis up", "short", (("min(fleetgate_redis_up)", ""),), "stat"),
        Panel("Calls that Redis refuses", "short", (("sum(fleetgate_redis_refusing)", ""),), "stat"),
        Panel("Reservations", "short", (("sum(fleetgate_reservations)", ""),), "stat"),
        Panel(
            "Least that is left of a limit",
            "percentunit",
            (("min by (tenant, limit) (fleetgate_limit_left_ratio)", "{{tenant}} {{limit}}"),),
        ),
        Panel(
            "Refused by limits", "reqps", ((_rate("fleetgate_requests_total", "ending", 'status="429"'), "{{ending}}"),)
        ),
        Panel(
            "Limits decided without Redis", "reqps", ((_rate("fleetgate_limits_failed_over_total", "how"), "{{how}}"),)
        ),
        Panel(
            "Waiting by class",
            "short",
            (("sum by (model, service_class) (fleetgate_waiting_requests)", "{{model}} {{service_class}}"),),
        ),
        Panel(
            "Ends of waiting",
            "reqps",
            ((_rate("fleetgate_queued_requests_total", "service_class, ending"), "{{service_class}}: {{ending}}"),),
        ),
        Panel(
            "Turns in the fair order",
            "short",
            (("max by (tenant, service_class) (fleetgate_turn_counter) or vector(0)", "{{tenant}} {{service_class}}"),),
        ),
        Panel("Retries refused", "reqps", ((_rate("fleetgate_retries_refused_total", "model"), "{{model}}"),)),
        Panel(
            "Memory for requests",
            "bytes",
            (("sum(fleetgate_memory_held_bytes)", "held"), ("sum(fleetgate_memory_limit_bytes)", "limit")),
        ),
        Panel(
            "Settlements",
            "short",
            (
                ("sum(fleetgate_settlements_waiting)", "waiting"),
                (f"sum(increase(fleetgate_settlements_dropped_total[{RATE}]))", "dropped"),
            ),
        ),
        Panel(
            "Usage records",
            "short",
            (
                ("sum(fleetgate_usage_records_waiting)", "waiting"),
                (f"sum(increase(fleetgate_usage_records_dropped_total[{RATE}]))", "dropped"),
            ),
        ),
        Panel(
            "Outages of Redis, and refused calls",
            "short",
            (
                ("sum by (instance) (fleetgate_redis_outages_total)", "outages, {{instance}}"),
                ("sum by (instance) (fleetgate_redis_refused_total)", "refused, {{instance}}"),
            ),
        ),
        Panel("Shortages", "short", ((f"{_rate('fleetgate_shortages_total', 'cause')} or vector(0)", "{{cause}}"),)),
        Panel("Reloads", "short", (("sum by (result) (fleetgate_config_reloads_total)", "{{result}}"),)),
        Panel(
            "Log writes that failed",
            "short",
            (("sum by (instance) (fleetgate_log_writes_failed_total)", "{{instance}}"),),
        ),
        Panel(
            "Free disk under logs",
            "percentunit",
            (("min by (instance) (fleetgate_log_disk_free_ratio)", "{{instance}}"),),
        ),
        Panel("Spans", "short", ((_rate("fleetgate_spans_total", "result"), "{{result}} a second"),)),
    ),
    (),
)

GPUS = Board(
    "gpus",
    "fleetgate: GPUs",
    (
        Panel("GPU use", "percentunit", (("fleetgate_worker_gpu_use", "{{instance}} {{gpu}}"),)),
        Panel(
            "Most and least used GPU of a node",
            "percentunit",
            (
                ("max by (instance) (fleetgate_worker_gpu_use)", "most, {{instance}}"),
                ("min by (instance) (fleetgate_worker_gpu_use)", "least, {{instance}}"),
            ),
        ),
        Panel(
            "Memory in use",
            "percentunit",
            (
                (
                    "fleetgate_worker_gpu_memory_used_bytes / fleetgate_worker_gpu_memory_total_bytes",
                    "{{instance}} {{gpu}}",
                ),
            ),
        ),
        Panel(
            "Power, of its limit",
            "percentunit",
            (("fleetgate_worker_gpu_power_watts / fleetgate_worker_gpu_power_limit_watts", "{{instance}} {{gpu}}"),),
        ),
        Panel("Temperature", "celsius", (("fleetgate_worker_gpu_temperature_celsius", "{{instance}} {{gpu}}"),)),
        Panel("Lost GPUs", "short", (("sum by (instance) (fleetgate_worker_gpu_lost)", "{{instance}}"),)),
        Panel(
            "ECC errors",
            "short",
            (
                (
                    "sum by (instance, gpu, kind) (fleetgate_worker_gpu_ecc_errors_total)",
                    "{{instance}} {{gpu}} {{kind}}",
                ),
            ),
        ),
        Panel(
            "Xid errors",
            "short",
            (
                (
                    "sum by (instance, gpu, xid) (fleetgate_worker_gpu_xid_errors_total)",
                    "{{instance}} {{gpu}}: Xid {{xid}}",
                ),
            ),
        ),
        Panel("Busy multiprocessors (DCGM)", "percentunit", (("DCGM_FI_PROF_SM_ACTIVE", "{{Hostname}} {{gpu}}"),)),
        Panel("Busy memory (DCGM)", "percentunit", (("DCGM_FI_PROF_DRAM_ACTIVE", "{{Hostname}} {{gpu}}"),)),
        Panel("NVLink, sent (DCGM)", "Bps", (("DCGM_FI_PROF_NVLINK_TX_BYTES", "{{Hostname}} {{gpu}}"),)),
        Panel(
            "Requests in vLLM",
            "short",
            (
                ("sum by (instance) (vllm:num_requests_running)", "running, {{instance}}"),
                ("sum by (instance) (vllm:num_requests_waiting)", "waiting, {{instance}}"),
            ),
        ),
        Panel(
            "Tokens of vLLM",
            "short",
            (
                (_rate("vllm:generation_tokens_total", "instance"), "made a second, {{instance}}"),
                (_rate("vllm:prompt_tokens_total", "instance"), "read a second, {{instance}}"),
            ),
        ),
        Panel("KV cache of vLLM", "percentunit", (("max by (instance) (vllm:kv_cache_usage_perc)", "{{instance}}"),)),
        Panel("Preemptions of vLLM", "short", ((_rate("vllm:num_preemptions_total", "instance"), "{{instance}}"),)),
    ),
    (),
)

BOARDS = (FLEET, TENANTS, LATENCY, LIMITS, GPUS)


def rendered(board: Board) -> str:
    """The dashboard as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    x = y = 0
    for number, panel in enumerate(board.panels, 1):
        width, height = (4, 4) if panel.kind == "stat" else (8, 8)
        if x + width > 24 or (panels and panels[-1]["gridPos"]["h"] != height):
            x, y = 0, y + panels[-1]["gridPos"]["h"]
        panels.append(_panel(panel, number, {"x": x, "y": y, "w": width, "h": height}))
        x += width
    made = {
        "uid": f"fleetgate-{board.name}",
        "title": board.title,
        "tags": ["fleetgate"],
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [{"type": "dashboards", "tags": ["fleetgate"], "title": "fleetgate", "asDropdown": True}],
        "templating": {"list": [_variable(name, metric) for name, metric in board.variables]},
        "panels": panels,
    }
    return json.dumps(made, indent=1) + "\n"


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + at),
            "expr": expression,
            "legendFormat": legend or "__auto",
            "datasource": SOURCE,
            **({"exemplar": True} if panel.exemplars else {}),
            **({"instant": True, "format": "table"} if panel.kind == "table" else {}),
        }
        for at, (expression, legend) in enumerate(panel.queries)
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "gridPos": place,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": targets,
    }


def _variable(name: str, metric: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": f"label_values({metric}, {name})", "refId": name},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def main() -> None:
    for board in BOARDS:
        (FOLDER / f"{board.name}.json").write_text(rendered(board))


if __name__ == "__main__":
    main()
