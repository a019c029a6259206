"""GPUs as records tell them: what is read, and what counts as trouble."""

import json
from typing import Any

import pytest

from gateway.core.fleet.gpus import MOST_GPUS, GpuFacts, gpu_troubles, read_gpus


@pytest.mark.parametrize("told", [None, {}, "gpus", 8, True, [], [None], ["0"], [[0]], [{}], [{"use": 1}]])
def test_what_is_no_list_of_gpus_is_left_out(told: Any) -> None:
    assert read_gpus(told) == ()


@pytest.mark.parametrize("index", [None, "0", -1, True, 1.0e9, float("nan"), [0]])
def test_a_gpu_without_a_number_is_left_out_and_the_others_are_read(index: Any) -> None:
    assert read_gpus([{"index": index}, {"index": 1}]) == (GpuFacts(1),)


@pytest.mark.parametrize("field", ["use", "memory", "watts", "celsius", "xid", "ecc_uncorrected"])
@pytest.mark.parametrize("wrong", ["0.5", True, None, [], {}, "NaN", "Infinity", "-1e30", "1" + "0" * 400])
def test_a_value_that_is_none_is_left_out_alone(field: str, wrong: Any) -> None:
    spelled = wrong if isinstance(wrong, str) and wrong != "0.5" else json.dumps(wrong)
    told = json.loads('[{"index": 3, "lost": false, "%s": %s}]' % (field, spelled))  # noqa: UP031
    assert read_gpus(told) == (GpuFacts(3),)


def test_a_record_of_endless_gpus_is_cut() -> None:
    assert len(read_gpus([{"index": 0}] * 10_000)) == MOST_GPUS


def test_a_gpu_is_read_whole() -> None:
    whole = {"index": 1, "use": 1, "memory": 0.5, "watts": 612.0, "celsius": 66, "xid": 79, "ecc_uncorrected": 2}
    assert read_gpus([{**whole, "lost": True, "colour": "green"}]) == (GpuFacts(1, 1.0, 0.5, 612.0, 66.0, 79, 2, True),)


def using(*uses: float | None) -> list[GpuFacts]:
    return [GpuFacts(index, use) for index, use in enumerate(uses)]


@pytest.mark.parametrize(
    ("gpus", "troubles"),
    [
        ([], []),
        (using(0.95, 0.93, 0.02, 0.94), ["GPU 2 idle (2%) while others are at 95%"]),
        (using(0.95, 0.0, 0.02, 0.94), ["GPU 1, 2 idle (0%, 2%) while others are at 95%"]),
        (using(0.0, 0.0, 0.01, 0.0), []),  # nobody asks anything
        (using(0.4, 0.0), []),  # little to do
        (using(0.95, 0.30), []),  # uneven, and at work
        (using(0.95, None), []),
        (using(0.95), []),
        ([GpuFacts(0, 0.9), GpuFacts(1, lost=True)], ["GPU 1 lost: the driver does not reach it"]),
        ([GpuFacts(0, xid=0, ecc_uncorrected=0), GpuFacts(1, xid=79)], ["GPU 1: Xid error 79"]),
        ([GpuFacts(4, ecc_uncorrected=3)], ["GPU 4: 3 uncorrected ECC errors"]),
    ],
)
def test_trouble_is_told_in_a_sentence(gpus: list[GpuFacts], troubles: list[str]) -> None:
    assert gpu_troubles(gpus) == troubles
