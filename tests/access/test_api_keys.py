"""Keys: their shape, and the checksum that tells a typo."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.access.api_keys import (
    PATTERN,
    RANDOM_BYTES,
    is_damaged,
    is_whole,
    key_digest,
    key_from,
    key_id,
    selector,
)

KEYS = st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES).map(key_from)


@given(KEYS)
def test_a_new_key_is_whole_and_found_by_scanners(key: str) -> None:
    assert is_whole(key.encode())
    assert re.fullmatch(PATTERN, key)


@given(KEYS, st.integers(3, 48), st.sampled_from("0aZ9"))
def test_a_typo_is_told(key: str, at: int, letter: str) -> None:
    typo = key[:at] + letter + key[at + 1 :]
    assert is_whole(typo.encode()) is (typo == key)


@given(KEYS, st.integers(3, 47))
def test_two_letters_the_wrong_way_round_are_told(key: str, at: int) -> None:
    swapped = key[:at] + key[at + 1] + key[at] + key[at + 2 :]
    assert is_whole(swapped.encode()) is (swapped == key)


@pytest.mark.parametrize("other", ["", "fg-", "sk-" + "a" * 46, "fg-" + "a" * 45, "fg-" + "a" * 47, "fg-" + "_" * 46])
def test_other_keys_are_not_whole(other: str) -> None:
    assert not is_whole(other.encode())
    assert is_damaged(other.encode()) is (other.startswith("fg-") and "_" not in other)


@given(KEYS, st.integers(3, 48))
def test_a_key_that_was_cut_off_or_pasted_with_more_is_told(key: str, length: int) -> None:
    assert is_damaged(key[:length].encode())
    assert is_damaged(f"{key}{key[3:length]}a".encode())
    assert not is_damaged(key.encode())


def test_the_format_stays_as_it_is() -> None:
    """Keys that are out there must stay good: this one was made by the first version."""
    key = key_from(bytes(range(RANDOM_BYTES)))
    assert key == GOLDEN
    assert key_id(key_digest(key)) == "key_" + key_digest(key).hex()[:16]


def test_digests_of_text_and_bytes_are_the_same() -> None:
    assert key_digest("é") == key_digest("é".encode())
    assert len(key_digest("")) == 32
    assert selector(key_digest("a")) == key_digest("a")[:8]


GOLDEN = "fg-rKhhwjnlS86reYjdQ5ckAqLoTS4ckntI6Yz8O0Ih2zIi4g"
