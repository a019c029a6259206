"""What processes tell each other of nodes, and what comes of it together."""

import pytest

from gateway.core.fleet.peer_view import WAITS, PeerView, quantile, read, spell, states, together

CALM = PeerView("ready", 2, 100, (0.1, 0.2), None)
ILL = PeerView("out", 1, 50, (0.3,), "connection refused")


def test_what_is_spelt_is_read_and_only_the_latest_waits_are_told() -> None:
    many = CALM._replace(waits=tuple(number / 8 for number in range(300)))
    assert read(spell({"a:1": many, "b:2": ILL})) == {"a:1": many._replace(waits=many.waits[-WAITS:]), "b:2": ILL}


@pytest.mark.parametrize(
    "spelled", ["", "[]", "null", '{"a": 1}', '{"a": ["ready", 1]}', '{"a": ["ready", {}, 1, [], null]}']
)
def test_what_another_version_wrote_is_not_understood(spelled: str) -> None:
    with pytest.raises(ValueError):
        read(spelled)


def test_counts_are_added_and_the_first_one_says_the_state() -> None:
    assert together([CALM, ILL, CALM]) == PeerView("ready", 5, 250, (0.1, 0.2, 0.3, 0.1, 0.2), "connection refused")
    assert states([CALM, ILL, CALM]) == {"ready": 2, "out": 1}
    assert together([ILL]) == ILL


def test_quantiles() -> None:
    waits = [number / 100 for number in range(100)]
    assert (quantile(waits, 0.5), quantile(waits, 0.99), quantile(waits, 1.0), quantile([], 0.5)) == (
        0.5,
        0.99,
        0.99,
        None,
    )
