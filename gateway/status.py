"""`fleetgate status`: the fleet as a table that keeps itself up to date."""

import time
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gateway.control import Control

REFRESH_SECONDS = 1.0
COLOURS = {"ready": "green", "warming up": "yellow", "draining": "yellow", "out": "red", "unknown": "dim"}


def show_status(control: Control, console: Console) -> None:
    """Print the table once."""
    console.print(fleet_table(control.get("/admin/fleet")))


def follow_status(control: Control, console: Console) -> None:
    """Show it until Ctrl-C."""
    with Live(fleet_table(control.get("/admin/fleet")), console=console, auto_refresh=False, screen=False) as live:
        try:
            while True:
                time.sleep(REFRESH_SECONDS)
                live.update(fleet_table(control.get("/admin/fleet")), refresh=True)
        except KeyboardInterrupt:
            return


def fleet_table(view: dict[str, Any]) -> Table:
    """The answer of /admin/fleet for people."""
    table = Table(caption=_caption(view), caption_justify="left")
    for title in ("node", "state", "breaker"):
        table.add_column(title, no_wrap=True)
    for title in ("in flight", "running", "waiting", "KV", "hits", "tok/s", "TTFT p50", "p99"):
        table.add_column(title, justify="right")
    table.add_column("last error", overflow="fold")
    for node in view["nodes"]:
        table.add_row(
            node["name"],
            Text(node["state"], COLOURS.get(node["state"], "")),
            node["breaker"],
            _of(node["in_flight"], node["places"]),
            _number(node["running"]),
            _number(node["waiting"]),
            _share(node["kv_use"]),
            _share(node["hit_rate"]),
            _number(node["tokens_per_second"]),
            _seconds(node["ttft_p50"]),
            _seconds(node["ttft_p99"]),
            Text(node["last_error"] or ""),
        )
    return table


def _caption(view: dict[str, Any]) -> str:
    redis = {None: "no Redis", True: "Redis up", False: "Redis down"}[view["redis"]]
    return (
        f"Breaker, in flight, TTFT and errors as process {view['process']} sees them (one of {view['gateways']}); "
        f"the other numbers are the nodes' own. {redis}."
    )


def _of(taken: int, places: int | None) -> str:
    return str(taken) if places is None else f"{taken}/{places}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s" if value < 100 else f"{value:.0f} s"
