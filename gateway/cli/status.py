"""`fleetgate status`: the fleet as a table that keeps itself up to date."""

import time
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gateway.cli.admin_client import AdminClient

REFRESH_SECONDS = 1.0
WORST = 5
"""Nodes that are named for the answers that broke off there."""
COLOURS = {
    "ready": "green",
    "warming up": "yellow",
    "draining": "yellow",
    "failing": "red",
    "out": "red",
    "unknown": "dim",
}
USUAL = {"ready": ("closed",), "warming up": ("probation", "closed"), "draining": ("closed",), "out": ("open",)}
"""What a node's breaker is where a node is in such a state."""


BUDGETS = {True: "held by the node", False: "held here", None: "-"}
"""Who ends thinking at a budget, by what a node's canary showed."""


def show_status(control: AdminClient, console: Console, wide: bool = False) -> None:
    """Print the table once."""
    view = control.get("/admin/fleet")
    console.print(render_nodes(view) if wide else render_fleet(view))


def watch_status(control: AdminClient, console: Console) -> None:
    """Show it until Ctrl-C."""
    with Live(render_fleet(control.get("/admin/fleet")), console=console, auto_refresh=False, screen=False) as live:
        try:
            while True:
                time.sleep(REFRESH_SECONDS)
                live.update(render_fleet(control.get("/admin/fleet")), refresh=True)
        except KeyboardInterrupt:
            return


def render_fleet(view: dict[str, Any]) -> RenderableType:
    """The answer of /admin/fleet for people: a table that fits a terminal of 80 columns, and below it what is wrong."""
    return Group(
        _table(view["nodes"]),
        *_errors(view),
        *_pressure(view),
        *_breaks(view),
        *_queues(view),
        Text(_caption(view), "dim italic"),
    )


def _table(nodes: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("node", overflow="fold")
    table.add_column("state", no_wrap=True)
    for title in ("in\nflight", "run", "wait", "KV", "hits", "tok/s", "TTFT\np50", "TTFT\np99"):
        table.add_column(title, justify="right", no_wrap=True)
    for node in nodes:
        table.add_row(
            node["name"],
            Text(_state(node), COLOURS.get(node["state"], "")),
            _of(node["in_flight"], node["places"]),
            _number(node["running"]),
            _number(node["waiting"]),
            _share(node["kv_use"]),
            _share(node["hit_rate"]),
            _number(node["tokens_per_second"]),
            _seconds(node["ttft_p50"]),
            _seconds(node["ttft_p99"]),
        )
    return table


def render_nodes(view: dict[str, Any]) -> RenderableType:
    """What each node is: the table of `--wide`."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in ("node", "state", "breaker", "since", "vLLM", "budgets", "models"):
        table.add_column(title, overflow="fold")
    for node in view["nodes"]:
        since = node.get("since")
        table.add_row(
            node["name"],
            Text(_state(node), COLOURS.get(node["state"], "")),
            node["breaker"] + (f" ({node['cause']})" if node.get("cause") else ""),
            "-" if since is None else _span(since),
            node.get("version") or "-",
            BUDGETS[node.get("holds_budgets")],
            ", ".join(node["models"]) or "-",
        )
    return Group(table, *_errors(view), Text(_caption(view), "dim italic"))


def _errors(view: dict[str, Any]) -> list[Text]:
    lines = [
        f"No node can serve {model['name']} ({_nodes(model['nodes'])} it): {model['error']}"
        for model in view.get("models", ())
        if not model["ready"]
    ]
    lines += [
        f"{model['name']}: all requests in {each['dialect']} fail ({each['requests']} in a row"
        + (f", all of the tenant {each['tenant']}" if each.get("tenant") else "")
        + f"): {each['error']}"
        for model in view.get("models", ())
        for each in model.get("failing", ())
    ]
    lines += [
        f"The tenant {each['tenant']} may use {each['model']}, which no node has served since the start"
        + (f": did you mean {each['meant']}?" if each["meant"] else "")
        for each in view.get("unserved", ())
    ]
    lines += [_trouble(node) for node in view["nodes"] if node["last_error"]]
    lines += [f"{node['name']}: {trouble}" for node in view["nodes"] for trouble in node.get("gpu_troubles", ())]
    lines += [f"Redis: {trouble}" for trouble in view.get("redis_troubles", ())]
    return [Text("\n".join([*lines, ""]))] if lines else []


def _nodes(count: int) -> str:
    return "1 node has" if count == 1 else f"{count} nodes have"


def _trouble(node: dict[str, Any]) -> str:
    """`gpu-01:8000: out for 4 min (failing): the node answered with status 500`."""
    cause, since = node.get("cause"), node.get("since")
    out = "" if cause in (None, "new") else f" out{'' if since is None else f' for {_span(since)}'} ({cause}):"
    return f"{node['name']}:{out} {node['last_error']}"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _pressure(view: dict[str, Any]) -> list[Text]:
    """The models of which thinking budgets are smaller now; nothing where none are."""
    return [
        Text(f"{model['name']}: thinking budgets are at {100 * model['thinking_factor']:.0f}% under pressure", "yellow")
        for model in view.get("models", ())
        if (model.get("thinking_factor") or 1.0) < 1.0
    ]


def _breaks(view: dict[str, Any]) -> list[Text]:
    """What became of the answers that broke off of late, and on which nodes; nothing where none did."""
    lines = [
        Text(
            f"{model['name']}: answers that broke off in the last 10 minutes: {model['resumed']} resumed, "
            f"{model['not_resumed']} not",
            "red" if model["not_resumed"] else "yellow",
        )
        for model in view.get("models", ())
        if model.get("resumed") or model.get("not_resumed")
    ]
    nodes = sorted((node for node in view["nodes"] if node.get("broke_off")), key=lambda node: -node["broke_off"])
    if nodes:
        worst = ", ".join(f"{node['name']} ({node['broke_off']})" for node in nodes[:WORST])
        more = f" and {len(nodes) - WORST} other nodes" if len(nodes) > WORST else ""
        lines.append(Text(f"They broke off on {worst}{more}" if lines else f"Answers broke off on {worst}{more}"))
    return [*lines, Text()] if lines else []


def _queues(view: dict[str, Any]) -> list[Text]:
    """What waits for a place; nothing where none does."""
    lines = []
    for model in view.get("models", ()):
        waiting, elsewhere = model.get("waiting", {}), model.get("waiting_elsewhere", 0)
        if not waiting and not elsewhere:
            continue
        parts = [f"{count} {name}" for name, count in waiting.items()]
        parts += [f"{elsewhere} in other gateway processes"] if elsewhere else []
        expected = model.get("expected_wait")
        wait = "not known yet" if expected is None else f"{expected:.0f} s"
        lines.append(Text(f"{model['name']}: {', '.join(parts)} wait for a place; expected wait {wait}", "yellow"))
    return [*lines, Text()] if lines else []


def _caption(view: dict[str, Any]) -> str:
    redis = {None: "no Redis", True: "Redis up", False: "Redis down"}[view["redis"]]
    return f"State, in flight, TTFT and errors as {_who(view)}; the other numbers are the nodes' own. {redis}."


def _who(view: dict[str, Any]) -> str:
    """Whose view it is: all gateway processes', or that of those which could be heard."""
    gateways, views = view["gateways"], view["views"]
    if gateways == 1:
        return f"process {view['process']} sees them, the only one"
    if views == gateways:
        return f"all {gateways} gateway processes see them"
    if views == 1:
        return f"process {view['process']} sees them (one of {gateways})"
    return f"{views} of {gateways} gateway processes see them"


def _state(node: dict[str, Any]) -> str:
    """How many processes see it in which, where they differ; with the breaker's, where it is not the one that goes
    with it."""
    state, breaker = node["state"], node["breaker"]
    if len(node["seen"]) > 1:
        return "\n".join(f"{count} {each}" for each, count in node["seen"].items())
    return str(state) if breaker in USUAL.get(state, breaker) else f"{state} ({breaker})"


def _of(taken: int, places: int | None) -> str:
    return str(taken) if places is None else f"{taken}/{places}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}%"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}s" if value < 10 else f"{value:.1f}s" if value < 100 else f"{value:.0f}s"
