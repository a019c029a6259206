"""Locust's page is ended by Ctrl-C, and the result of its last load is kept."""

import signal
import sys
from pathlib import Path

from loadtest.load.run import wait_for_page
from loadtest.processes import Child

PAGE = """
import pathlib, signal, sys, time

def end(*_):
    time.sleep(0.2)  # the grace of what is under way
    pathlib.Path(sys.argv[1]).write_text("result")
    sys.exit(0)

signal.signal(signal.SIGINT, end)
pathlib.Path(sys.argv[2]).touch()
time.sleep(60)
"""


def test_ctrl_c_is_handed_to_locust_which_leaves_its_result(tmp_path: Path) -> None:
    result, up = tmp_path / "result", tmp_path / "up"
    with Child([sys.executable, "-c", PAGE, str(result), str(up)], tmp_path / "log") as page:

        def interrupt(*_: object) -> None:
            if up.exists():
                signal.setitimer(signal.ITIMER_REAL, 0)
                sys.exit(130)  # as `end_on_signals` does

        before = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        try:
            wait_for_page(page, 30)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert page.ended and result.read_text() == "result"
