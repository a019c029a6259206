"""How long those that wait will wait, and what gateways tell each other of them."""

from math import inf

import pytest

from gateway.core.admission.peers import VALID, PeerQueues, spell_facts
from gateway.core.admission.queue_facts import QueueFacts
from gateway.core.admission.service_time import ENOUGH, ServiceTime


def test_the_expected_wait_is_by_the_time_that_places_are_held() -> None:
    service = ServiceTime()
    for _ in range(ENOUGH - 1):
        service.note(10.0)
    assert service.wait_for(0, 4) == inf, "too little is known"
    service.note(10.0)
    assert service.wait_for(0, 4) == pytest.approx(2.5)
    assert service.wait_for(7, 4) == pytest.approx(20.0)
    assert service.wait_for(7, 0) == inf
    for _ in range(200):
        service.note(1.0)
    assert service.wait_for(0, 1) == pytest.approx(1.0, abs=0.01)


def test_what_one_gateway_says_another_reads() -> None:
    peers = PeerQueues()
    lines = [
        f"1|standard|standard|a|3|{spell_facts({'standard': 3, 'batch': 0})}".encode(),
        f"1|batch|batch|a|5|{spell_facts({'standard': 1, 'batch': 4})}".encode(),
        b"1|batch|batch|a|5|of=another,version",
        b"1|batch|batch|a|5|",
        b"\xff",
    ]
    peers.update(lines, 10.0)
    assert peers.waiting(10.0) == 8
    assert (peers.waiting(10.0, "standard"), peers.waiting(10.0, "batch"), peers.waiting(10.0, "x")) == (4, 4, 0)
    assert peers.waiting(10.0 + VALID) == 0, "it is too old"
    peers.update([], 20.0)
    assert peers.waiting(20.0) == 0


def test_facts_are_plain() -> None:
    facts = QueueFacts("m", {"standard": 1}, 0, inf, {})
    assert facts._replace(waiting={}) != facts
