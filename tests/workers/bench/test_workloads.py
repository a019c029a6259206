"""What a bench asks: lengths, shared beginnings, traces."""

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from workers.bench.prose import write_prose
from workers.bench.settings import choose_workloads, doubled, read_numbers, read_users
from workers.bench.trace import read_trace
from workers.bench.workloads import SHAPES, TEMPLATE_TOKENS, ShapedAsker, TraceAsker, fit
from workers.errors import ConfigError

ENTRY: dict[str, Any] = {"timestamp": 0, "input_length": 1500, "output_length": 30, "hash_ids": [0, 1, 2]}


def words(text: str) -> int:
    return len(text.split())


def write(folder: Path, *entries: Any) -> Path:
    file = folder / "trace.jsonl"
    file.write_text("".join((e if isinstance(e, str) else json.dumps(e)) + "\n" for e in entries))
    return file


@pytest.mark.parametrize("count", [1, 8, 80, 4000])
def test_prose_has_its_length_and_is_the_same_for_the_same_seed(count: int) -> None:
    random.seed(0)
    assert abs(words(write_prose("a", count)) - count) <= 8
    assert write_prose("a", count) == write_prose("a", count)
    assert write_prose("a", count) != write_prose("b", count)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("context", [256, 4096, 32_768, 262_144, 1_000_000])
def test_prompt_and_answer_fit_into_the_context(name: str, context: int) -> None:
    shape = fit(SHAPES[name], 1.0, context)
    assert shape.input_tokens + shape.output_tokens + TEMPLATE_TOKENS <= context + 32
    assert shape.input_tokens <= SHAPES[name].input_tokens
    assert shape.shared == SHAPES[name].shared
    assert f"{shape.input_tokens:,} in / {shape.output_tokens:,} out" in shape.told


def test_a_users_prompts_begin_alike_and_end_otherwise() -> None:
    asker = ShapedAsker(fit(SHAPES["chat"], 0.25, 100_000), "run", 1.25)
    before, first, second = asker.warm_up(0), asker.next(0), asker.next(0)
    assert before is not None and first is not None and second is not None
    assert first.prompt.startswith(before.prompt) and second.prompt.startswith(before.prompt)
    assert first.prompt != second.prompt
    assert words(before.prompt) / words(first.prompt) == pytest.approx(0.7, abs=0.03)
    assert words(first.prompt) * 1.25 == pytest.approx(2048, rel=0.05)
    assert (before.output_tokens, first.output_tokens) == (1, 256)
    assert asker.warm_up(0) is None, "once a user"
    other = asker.warm_up(1)
    assert other is not None and other.prompt[:30] != before.prompt[:30], "no user finds another's prompt in the cache"


def test_another_run_finds_nothing_of_this_one_in_the_cache() -> None:
    one, other = (ShapedAsker(SHAPES["reasoning"], run, 1.0).next(0) for run in ("a", "b"))
    assert one is not None and other is not None
    assert one.prompt[:20] != other.prompt[:20]


def test_prompts_of_a_trace_share_their_blocks(tmp_path: Path) -> None:
    later = {"timestamp": 2000, "input_length": 1530, "output_length": 9, "hash_ids": [0, 1, 7], "colour": "green"}
    asker = TraceAsker(read_trace(write(tmp_path, ENTRY, "", later)), 1.0, 10_000, "run", 1.25)
    first, second = asker.next(0), asker.next(3)
    assert first is not None and second is not None and asker.next(0) is None
    assert words(first.prompt) * 1.25 == pytest.approx(1500, rel=0.05)
    pairs = zip(first.prompt.split(), second.prompt.split(), strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    assert shared == pytest.approx(1024 / 1.25, rel=0.1)
    assert (first.at, second.at, first.output_tokens, second.output_tokens) == (0.0, 2.0, 30, 9)
    assert asker.told == "trace of 2 requests, on average 1,515 in / 20 out"


def test_a_trace_is_scaled_and_what_is_longer_than_the_context_is_counted(tmp_path: Path) -> None:
    entries = read_trace(write(tmp_path, ENTRY, {**ENTRY, "input_length": 90_000}, {**ENTRY, "timestamp": 4000}))
    asker = TraceAsker(entries, 0.1, 4000, "run", 1.25, rate=2.0)
    question = asker.next(0)
    assert question is not None and words(question.prompt) * 1.25 == pytest.approx(150, rel=0.1)
    last = asker.next(0)
    assert last is not None and last.at == pytest.approx(1.0), "two requests in a second, and not in four"
    assert asker.told.endswith("lengths x 0.1; 1 longer than the context left out")
    with pytest.raises(ConfigError, match="longer than the node's 20 tokens: use --scale"):
        TraceAsker(entries, 0.1, 20, "run", 1.25)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2: not JSON"),
        ("[" * 5000, "line 2: not JSON"),
        ("[]", "line 2: the line: "),
        ("7", "line 2: the line: "),
        ({**ENTRY, "input_length": 0}, "line 2: input_length: "),
        ({**ENTRY, "input_length": "many"}, "line 2: input_length: "),
        ({**ENTRY, "input_length": 10**12}, "line 2: input_length: "),
        ({**ENTRY, "timestamp": -1}, "line 2: timestamp: "),
        ('{"timestamp": NaN, "input_length": 1, "output_length": 1}', "line 2: timestamp: "),
        ({**ENTRY, "hash_ids": "0"}, "line 2: hash_ids: "),
        ({"timestamp": 1, "input_length": 1}, "line 2: output_length: "),
    ],
)
def test_a_wrong_line_of_a_trace_is_named(tmp_path: Path, line: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_trace(write(tmp_path, ENTRY, line))


def test_a_trace_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the trace .*gone"):
        read_trace(tmp_path / "gone")
    with pytest.raises(ConfigError, match="cannot read the trace"):
        read_trace(tmp_path)
    with pytest.raises(ConfigError, match="has no request"):
        read_trace(write(tmp_path))
    (tmp_path / "trace.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot read the trace"):
        read_trace(tmp_path / "trace.jsonl")


@pytest.mark.parametrize(
    ("most", "steps"), [(1, (1,)), (2, (1, 2)), (16, (1, 2, 4, 8, 16)), (24, (1, 2, 4, 8, 16, 24))]
)
def test_a_ladder_doubles_up_to_what_the_node_takes(most: int, steps: tuple[int, ...]) -> None:
    assert doubled(most) == steps


@pytest.mark.parametrize("text", ["0", "-1", "a", "1,,2", "1;2", "nan", "inf", "1.5", "1e9", " "])
def test_wrong_loads_are_told(text: str) -> None:
    with pytest.raises(ConfigError, match="--users"):
        read_users(text)


def test_loads_are_read() -> None:
    assert read_users("4, 1,4") == (1, 4)
    assert read_users(None) == ()
    assert read_numbers("--rate", "0.5,2", 100) == (0.5, 2.0)


def test_workloads_are_chosen(tmp_path: Path) -> None:
    assert choose_workloads((), None) == ("chat", "agents", "reasoning")
    assert choose_workloads((), tmp_path) == ("chat", "agents", "reasoning", "trace")
    assert choose_workloads(("trace", "chat", "trace"), tmp_path) == ("trace", "chat")
    with pytest.raises(ConfigError, match="unknown workload 'talk'; known: chat, agents, reasoning, trace"):
        choose_workloads(("talk",), None)
    with pytest.raises(ConfigError, match="needs --trace FILE"):
        choose_workloads(("trace",), None)
