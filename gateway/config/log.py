"""Settings of the log."""

from typing import Literal

from gateway.config.types import Section


class Log(Section):
    """One line a request on standard error, and one an event (docs/logs.md)."""

    format: Literal["json", "text"] = "json"
    """`json` for machines, `text` for people."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level that is written."""
