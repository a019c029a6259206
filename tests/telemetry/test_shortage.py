"""Which errors are this machine's own, and which the peer's."""

import errno

import pytest

from gateway.core.telemetry.shortage import shortage_in

OWN = [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM]
PEERS = [errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNRESET, errno.ETIMEDOUT, errno.EPIPE]


def raised_from(cause: Exception, *, suppressed: bool = False, implicit: bool = False) -> Exception:
    """A library's error with `cause` behind it, as `raise` would have put it there."""
    error = ValueError("all attempts failed")
    if implicit or suppressed:
        error.__context__ = cause
        error.__suppress_context__ = suppressed
    else:
        error.__cause__ = cause
    return error


@pytest.mark.parametrize("number", [*OWN, errno.EADDRNOTAVAIL])
def test_a_shortage_is_found_however_deep_it_lies(number: int) -> None:
    own, name = OSError(number, "x"), errno.errorcode[number]
    assert shortage_in(own) == name
    assert shortage_in(raised_from(own)) == name
    assert shortage_in(raised_from(raised_from(own), implicit=True)) == name
    assert shortage_in(raised_from(own, suppressed=True)) is None
    assert shortage_in(raised_from(ExceptionGroup("two", [own, own]))) == name


@pytest.mark.parametrize("number", PEERS)
def test_what_a_peer_does_is_none(number: int) -> None:
    theirs = OSError(number, "x")
    assert shortage_in(theirs) is None
    assert shortage_in(raised_from(theirs)) is None
    assert shortage_in(ExceptionGroup("two", [theirs, theirs])) is None


@pytest.mark.parametrize("number", OWN)
def test_of_several_addresses_one_that_could_not_be_tried_says_nothing_of_the_node(number: int) -> None:
    own, refused = OSError(number, "x"), OSError(errno.ECONNREFUSED, "x")
    assert shortage_in(ExceptionGroup("two", [refused, own])) == errno.errorcode[number]


def test_a_machine_without_ipv6_does_not_hide_that_a_node_refuses() -> None:
    """`localhost` is ::1 and 127.0.0.1: the first cannot be tried there, the second says no."""
    no_such_network, refused = OSError(errno.EADDRNOTAVAIL, "x"), OSError(errno.ECONNREFUSED, "x")
    assert shortage_in(ExceptionGroup("two", [no_such_network, refused])) is None
    assert shortage_in(ExceptionGroup("two", [no_such_network, no_such_network])) == "EADDRNOTAVAIL"
