"""Ids of kept responses open for their tenant alone; those of items name a place."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.dialects.response_ids import NONCE_BYTES, node_tag, open_id, seal
from gateway.core.responses.kept_ids import (
    INPUT_ITEMS,
    PLACE_BYTES,
    ItemPlace,
    Place,
    item_id,
    item_place,
    new_place,
    open_kept_id,
    seal_place,
)

KEY, OTHER = b"k" * 32, b"o" * 32
PLACES = st.binary(min_size=PLACE_BYTES, max_size=PLACE_BYTES).map(new_place)
TENANTS = st.text(max_size=20)


@given(PLACES, TENANTS, TENANTS)
def test_an_id_opens_for_its_tenant_with_its_key(place: Place, tenant: str, other: str) -> None:
    made = seal_place(KEY, place, tenant)
    assert open_kept_id(KEY, made, tenant) == place
    assert (open_kept_id(KEY, made, other) is None) == (tenant != other)
    assert open_kept_id(OTHER, made, tenant) is None


@given(PLACES, st.integers(5, 68), st.sampled_from("0123456789abcdefG_ "))
def test_a_changed_id_opens_nothing(place: Place, at: int, put: str) -> None:
    made = seal_place(KEY, place, "t")
    changed = made[:at] + put + made[at + 1 :]
    assert (open_kept_id(KEY, changed, "t") is None) == (changed != made)


def test_no_spelling_but_its_own_opens() -> None:
    made = seal_place(KEY, new_place(bytes(range(PLACE_BYTES))), "t")
    for other in (made.upper(), made[5:], f"resp_{made}", made + "00", made[:-2], f" {made}", "", "resp_", "é" * 69):
        assert open_kept_id(KEY, other, "t") is None


@given(st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES), st.text(max_size=8))
def test_the_ids_of_nodes_responses_are_others(nonce: bytes, tenant: str) -> None:
    assert open_kept_id(KEY, seal(KEY, nonce, node_tag("http://node"), tenant), tenant) is None
    assert open_id(KEY, seal_place(KEY, new_place(nonce * 3), tenant), tenant) is None


def test_a_turn_stays_in_its_conversation() -> None:
    first = new_place(b"a" * PLACE_BYTES)
    second = new_place(b"b" * PLACE_BYTES, first.conversation)
    assert second.conversation == first.conversation and second.turn != first.turn


@given(PLACES, st.integers(0, 2 * INPUT_ITEMS - 1), st.sampled_from(["msg_", "rs_", "fc_", "ctco_"]))
def test_an_items_id_names_its_place(place: Place, number: int, prefix: str) -> None:
    assert item_place(item_id(prefix, place, number)) == ItemPlace(place, number)


@given(st.text(max_size=60))
def test_any_other_text_names_none(text: str) -> None:
    assert item_place(text) is None
    assert item_place(f"msg_{text}") is None or len(text) == 44


def test_digits_alone_name_none() -> None:
    assert item_place("_" + "0" * 44) is None
    assert item_place("0" * 44) is None
    assert item_place("msg_" + "A" * 44) is None
