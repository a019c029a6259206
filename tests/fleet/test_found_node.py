"""What gateways tell each other of nodes, and whose turn it is to ask."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.fleet.found_node import MOST_AGE, TERM, FoundNode, rank, read, spell, until_next_term
from gateway.core.fleet.node_metrics import NodeMetrics

NAMES = st.lists(st.text("abcdef0123", min_size=1, max_size=8), min_size=1, max_size=8, unique=True)
COUNT = st.none() | st.integers(0, 10**12)
LOADS = st.builds(
    NodeMetrics,
    at=st.floats(50, 100).map(lambda at: round(at, 3)),
    running=COUNT,
    waiting=COUNT,
    kv_use=st.none() | st.floats(0, 1),
    cache_queries=COUNT,
    cache_hits=COUNT,
    generated=COUNT,
    short_of_room=COUNT,
    ended=COUNT,
    prompts=COUNT,
    started=st.none() | st.floats(0, 2e9),
)
FOUND = st.builds(
    FoundNode,
    url=st.text(max_size=30).map(lambda text: "http://" + text.encode("utf-8", "replace").decode()),
    at=st.floats(50, 100).map(lambda at: round(at, 3)),
    models=st.text("0123456789abcdef", max_size=16),
    load=st.none() | LOADS,
)


@given(st.lists(FOUND, max_size=5), st.floats(0, 1e6))
def test_what_is_told_is_read_by_another_clock(found: list[FoundNode], offset: float) -> None:
    told = read(spell(found, 100.0).encode(), 100.0 + offset)
    assert [(each.url, each.models) for each in told] == [(each.url, each.models) for each in found]
    for mine, theirs in zip(found, told, strict=True):
        assert theirs.at == pytest.approx(mine.at + offset, abs=1e-3)
        if mine.load is None or theirs.load is None:
            assert mine.load is theirs.load
            continue
        assert theirs.load.at == pytest.approx(mine.load.at + offset, abs=1e-3)
        assert (theirs.load.generated, theirs.load.started) == (mine.load.generated, mine.load.started)


def test_what_is_too_old_or_of_a_newer_version_is_left() -> None:
    old, new = FoundNode("http://a", 100.0 - MOST_AGE - 1, "m"), FoundNode("http://b", 99.0, "m", NodeMetrics(98.0))
    told = json.loads(spell([old, new], 100.0))
    told[1].append("a field of a newer version")
    assert [each.url for each in read(json.dumps(told).encode(), 100.0)] == ["http://b"]
    ahead = [["http://c", -5.0, "m"]]
    assert read(json.dumps(ahead).encode(), 100.0)[0].at == 100.0, "nothing was found in the future"


@pytest.mark.parametrize(
    "text",
    ["", "{}", "null", "[1]", "[[]]", '[["http://a"]]', '[["http://a", "x", "m"]]', '[[1, 1.0, "m"]]',
     '[["http://a", 1.0, "m", 1.0, null, null]]', '[["http://a", 1e300, "m"]]', '[["http://a", true, "m"]]',
     '[["http://a", 1, "m", 1, "k", null, 1, 1, 1, 1, 1, 1, 1, 1]]', "[" * 2000],
)  # fmt: skip
def test_what_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read(text.encode(), 100.0)


@given(NAMES, st.text(max_size=10), st.floats(0, 1e10))
def test_all_agree_on_one_order_and_keep_it_where_one_leaves(names: list[str], url: str, now: float) -> None:
    order = sorted(names, key=lambda name: rank(name, names, url, now))
    assert [rank(name, names, url, now) for name in order] == list(range(len(names)))
    left = order[1:]
    assert [rank(name, left, url, now) for name in left] == list(range(len(left)))


def test_nodes_are_spread_over_gateways_and_handed_on_now_and_then() -> None:
    names = ["one", "two", "three", "four"]
    urls = [f"http://10.0.0.{number}:8000" for number in range(400)]
    firsts = [sum(rank(name, names, url, 1e9) == 0 for url in urls) for name in names]
    assert min(firsts) > 60 and sum(firsts) == 400
    terms = [1e9 + TERM * term for term in range(40)]
    assert len({rank("one", names, urls[0], at) for at in terms}) == 4
    changes = [sum(rank("one", names, url, 1e9) != rank("one", names, url, 1e9 + s) for url in urls) for s in (1, 60)]
    assert 0 < changes[0] < 20 < changes[1], "not all nodes change hands at the same moment"


@given(st.text(max_size=10), st.floats(0, 1e10))
def test_a_rank_holds_until_the_next_term(url: str, now: float) -> None:
    names, left = ["one", "two", "three"], until_next_term(url, now)
    assert 0 < left <= TERM
    assert rank("one", names, url, now) == rank("one", names, url, now + 0.99 * left)
