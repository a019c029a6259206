"""The last hour: tokens are spread over the time in which they came, and processes are added up."""

from typing import Any

from gateway.core.console.history import (
    BINS,
    MEASURES,
    MODELS,
    STEP,
    STEPS,
    History,
    add_up_steps,
    bin_of,
    read_steps,
    spell_steps,
)
from gateway.core.telemetry.folded import OTHER
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.usage.token_usage import Usage

NOW = 1_000_000_005.0
LAST = int(NOW) // STEP
AT = {name: place for place, name in enumerate(MEASURES)}


def ended(**fields: Any) -> RequestStats:
    given: dict[str, Any] = {"model": "m", "status": 200, "at": NOW, "stream": True, "ttft": 0.2, "duration": 1.2}
    return RequestStats(**{**given, "usage": Usage(100, 90, 60), **fields})


def test_one_request_is_one_step() -> None:
    history = History()
    history.note([ended(duration=1.2)], NOW)
    step = history.models["m"][LAST]
    assert [step[AT[name]] for name in ("requests", "errors", "thinking", "answer", "input")] == [1, 0, 60, 30, 100]
    assert sum(step[len(MEASURES) :]) == 1 and step[len(MEASURES) + bin_of(0.2)] == 1


def test_a_long_answer_is_spread_over_its_time() -> None:
    history = History()
    history.note([ended(duration=40.2, ttft=0.2, usage=Usage(7, 1001, 500))], NOW)
    steps = history.models["m"]
    assert sorted(steps) == [LAST - 4, LAST - 3, LAST - 2, LAST - 1, LAST]
    assert sum(step[AT["thinking"]] for step in steps.values()) == 500
    assert sum(step[AT["answer"]] for step in steps.values()) == 501
    assert max(step[AT["answer"]] for step in steps.values()) <= 101
    assert [steps[LAST - 4][AT["requests"]], steps[LAST][AT["requests"]]] == [0, 1]


def test_one_of_hours_fills_the_hour_and_no_more() -> None:
    history = History()
    history.note([ended(duration=90_000.0, usage=Usage(1, 3600, None))], NOW)
    assert len(history.models["m"]) == STEPS
    assert sum(step[AT["answer"]] for step in history.models["m"].values()) == 3600


def test_whole_answers_have_no_time_to_a_first_token() -> None:
    history = History()
    history.note([ended(stream=False), ended(usage=None, ttft=None)], NOW)
    assert sum(history.models["m"][LAST][len(MEASURES) :]) == 0


def test_refusals_are_errors_and_those_who_left_are_none() -> None:
    history = History()
    events = [ended(status=429, ending="rate_limit_exceeded", usage=None), ended(status=499, ending="client_gone")]
    history.note([*events, ended(model=None, status=401, ending="invalid_api_key", usage=None)], NOW)
    assert history.models["m"][LAST][AT["errors"]] == 1
    assert history.models["-"][LAST][AT["errors"]] == 1


def test_more_thinking_than_output_is_not_believed() -> None:
    history = History()
    history.note([ended(usage=Usage(1, 10, 50), duration=0.3)], NOW)
    assert (history.models["m"][LAST][AT["thinking"]], history.models["m"][LAST][AT["answer"]]) == (10, 0)


def test_the_most_that_waited_is_kept() -> None:
    history = History()
    for count in (0, 3, 9, 4):
        history.note_waiting("m", count, NOW)
    assert history.models["m"][LAST][AT["waiting"]] == 9
    history.note_waiting("n", 0, NOW)
    assert "n" not in history.models


def test_an_hour_later_nothing_is_left() -> None:
    history = History()
    history.note([ended(), ended(model="n", at=NOW + 3000)], NOW + 3000)
    history.forget(NOW + 3600)
    assert [*history.models] == ["n"]
    history.forget(NOW + 9000)
    assert history.models == {}


def test_models_are_bounded() -> None:
    history = History()
    history.note([ended(model=f"m{number}") for number in range(MODELS + 5)], NOW)
    assert len(history.models) == MODELS + 1
    assert history.models[OTHER][LAST][0] == 5


def test_processes_are_added_up() -> None:
    one, two = History(), History()
    one.note([ended(), ended(model="n")], NOW)
    two.note([ended(), ended()], NOW)
    two.note([ended(at=NOW - 60)], NOW)
    both = add_up_steps([one.models, two.models])
    assert both["m"][LAST][0] == 3 and both["m"][LAST - 6][0] == 1 and both["n"][LAST][0] == 1
    assert one.models["m"][LAST][0] == 1, "what is added up is not changed"
    many = {f"x{number}": {LAST: [1] * (len(MEASURES) + BINS)} for number in range(MODELS)}
    assert add_up_steps([one.models, many])[OTHER][LAST][0] == 2


def test_what_is_sent_is_read() -> None:
    history = History()
    history.note([ended(), ended(at=NOW - 600)], NOW)
    spelled = spell_steps(history.models)
    assert len(spelled["m"][0]) <= len(MEASURES) + BINS + 1
    assert read_steps(spelled, NOW) == history.models
    assert read_steps({"m": [[LAST - STEPS - 5, 1], [LAST + 50, 1]]}, NOW) == {"m": {}}
    assert read_steps({"m": [[LAST, *[1] * 500]]}, NOW) == {"m": {LAST: [1] * (len(MEASURES) + BINS)}}


def test_bins_are_half_powers_of_two() -> None:
    assert [bin_of(seconds) for seconds in (-1, 0, 0.01, 0.0145, 0.02, 0.04, 1000)] == [0, 0, 0, 1, 2, 4, BINS - 1]
