"""What a starting node says, shown to whoever waits for it."""

import re
from pathlib import Path

import pytest

SET_UP_SECONDS = 900.0
"""A first run installs vLLM and builds the model: about three minutes where downloads are quick."""


class Progress:
    """Shows what the command says while it sets up: minutes without a word look like a hang."""

    def __init__(self, log: Path, config: pytest.Config) -> None:
        self._log = log
        self._config = config
        self._shown = 0

    def url(self) -> str | None:
        """Show what is new; the node's URL once it is ready."""
        lines = self._log.read_text(errors="replace").splitlines()
        for line in lines[self._shown :]:
            self._show(line)
        self._shown = len(lines)
        ready = [match for line in lines if (match := re.match(r"ready: (http://\S+)", line))]
        return ready[0][1] if ready else None

    def _show(self, line: str) -> None:
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        capture = self._config.pluginmanager.get_plugin("capturemanager")
        if reporter is not None and capture is not None:  # neither is there in a worker of pytest-xdist
            with capture.global_and_fixture_disabled():
                reporter.write_line(line)
