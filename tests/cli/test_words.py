"""How people write settings, spans and moments on the command line."""

from datetime import UTC, datetime

import pytest
import typer

from gateway.cli.options import tree_of
from gateway.cli.times import moment_of, seconds_of

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def test_settings_are_spelled_as_in_the_file() -> None:
    words = ["limits.requests_per_minute=60", "models=[a, b]", "cache_salt=true", "limits.usd_per_day=", "label=a=b"]
    assert tree_of(words) == {
        "limits": {"requests_per_minute": 60, "usd_per_day": None},
        "models": ["a", "b"],
        "cache_salt": True,
        "label": "a=b",
    }


@pytest.mark.parametrize("words", [["limits"], ["=1"], ["a..b=1"], ["a=1", "a.b=2"], ["a=[1"]])
def test_what_is_no_setting_is_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught:
        tree_of(words)
    assert caught.value.exit_code == 2
    assert capsys.readouterr().err.startswith("fleetgate: ")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("24h", 86_400), ("7d", 604_800), ("1.5h", 5400), ("0", 0)]
)
def test_spans(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("24h", datetime(2026, 11, 23, 12, tzinfo=UTC)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T12:30", datetime(2026, 11, 1, 12, 30, tzinfo=UTC)),
        ("2026-11-01T12:00+02:00", datetime(2026, 11, 1, 10, tzinfo=UTC)),
    ],
)
def test_moments(text: str, moment: datetime) -> None:
    assert moment_of(text, NOW) == moment


def test_a_span_ahead() -> None:
    assert moment_of("1d", NOW, ahead=True) == datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "7", "7 d", "-7d", "2026-13-01"])
def test_what_is_no_moment_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"invalid (time|duration)"):
        moment_of(text, NOW)
