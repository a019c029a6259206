"""What processes tell each other of nodes, and what comes of it together."""

import pytest

from gateway.core.fleet.peer_view import WAITS, AnswerBreaks, PeerView, quantile, read, spell, states, together

CALM = PeerView("ready", 2, 100, (0.1, 0.2), None)
ILL = PeerView("out", 1, 50, (0.3,), "connection refused")
BREAKS = (AnswerBreaks("m", 3, 2, 1), AnswerBreaks("n", 1, 1, 0))


def test_what_is_spelt_is_read_and_only_the_latest_waits_are_told() -> None:
    many = CALM._replace(waits=tuple(number / 8 for number in range(300)))
    assert read(spell({"a:1": many, "b:2": ILL})) == {"a:1": many._replace(waits=many.waits[-WAITS:]), "b:2": ILL}
    assert read(spell({"a:1": CALM._replace(breaks=BREAKS)})) == {"a:1": CALM._replace(breaks=BREAKS)}


def test_versions_side_by_side_read_each_other_as_far_as_they_can() -> None:
    old = '{"a:1":["ready",2,100,[0.1,0.2],null]}'
    assert read(old) == {"a:1": CALM}, "an older one tells of no breaks"
    assert spell({"a:1": CALM}) == old, "an older one reads what has none"
    newer = '{"a:1":["ready",2,100,[0.1,0.2],null,[["m",3,2,1,"more"]],{"more":1}]}'
    assert read(newer) == {"a:1": CALM._replace(breaks=BREAKS[:1])}


@pytest.mark.parametrize(
    "spelled",
    [
        "",
        "[]",
        "null",
        '{"a": 1}',
        '{"a": ["ready", 1]}',
        '{"a": ["ready", {}, 1, [], null]}',
        '{"a": ["ready", 1, 1, [], null, 7]}',
    ],
)
def test_what_another_version_wrote_is_not_understood(spelled: str) -> None:
    with pytest.raises(ValueError):
        read(spelled)


def test_counts_are_added_and_the_first_one_says_the_state() -> None:
    assert together([CALM, ILL, CALM]) == PeerView("ready", 5, 250, (0.1, 0.2, 0.3, 0.1, 0.2), "connection refused")
    assert states([CALM, ILL, CALM]) == {"ready": 2, "out": 1}
    assert together([ILL]) == ILL
    assert together([CALM._replace(breaks=BREAKS), ILL, CALM._replace(breaks=BREAKS[:1])]).breaks == (
        AnswerBreaks("m", 6, 4, 2),
        AnswerBreaks("n", 1, 1, 0),
    )


def test_quantiles() -> None:
    waits = [number / 100 for number in range(100)]
    assert (quantile(waits, 0.5), quantile(waits, 0.99), quantile(waits, 1.0), quantile([], 0.5)) == (
        0.5,
        0.99,
        0.99,
        None,
    )
