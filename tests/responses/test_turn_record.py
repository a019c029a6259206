"""The record of a turn holds what its client got, and what a later request needs of it."""

from typing import Any

from gateway.core.dialects.opaque_text import REASONING, encode_text
from gateway.core.responses.kept_ids import INPUT_ITEMS, PLACE_BYTES, item_id, new_place
from gateway.core.responses.turn_record import (
    SaidInTurn,
    read_response,
    read_said,
    said_part,
    shown_items,
    write_record,
)

PLACE = new_place(bytes(PLACE_BYTES))
THOUGHT = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "Hm."}],
    "encrypted_content": encode_text(REASONING, "Hm."),
}
SAID = {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]}
RESPONSE = {"id": "resp_1", "incomplete_details": None, "output": [THOUGHT, SAID], "store": True}
ITEMS: list[Any] = [{"role": "user", "content": "hello"}, "loose", {"type": "function_call_output", "id": "mine"}]


def kept() -> SaidInTurn:
    said = read_said(write_record(ITEMS, RESPONSE))
    assert said is not None
    return said


def test_it_is_shown_as_its_client_got_it() -> None:
    record = write_record(ITEMS, RESPONSE)
    assert list((read_response(record) or {}).items()) == list(RESPONSE.items())
    assert encode_text(REASONING, "Hm.").encode() not in record
    assert read_response(write_record([], {"output": [], "id": "x"})) == {"output": [], "id": "x"}


def test_a_model_gets_what_was_said_without_opaque_texts() -> None:
    *items, thought, said = kept().as_input()
    assert items == ITEMS
    assert thought == {name: value for name, value in THOUGHT.items() if name != "encrypted_content"}
    assert said == SAID


def test_later_turns_need_a_part_of_it() -> None:
    record = write_record(ITEMS, RESPONSE | {"tools": ["long"]})
    assert b"long" not in said_part(record) and read_said(said_part(record)) == kept()


def test_items_are_found_by_number() -> None:
    record = kept()
    assert record.item(1) == SAID
    assert record.item(INPUT_ITEMS) == ITEMS[0]
    assert record.item(2) is record.item(INPUT_ITEMS + 3) is record.item(INPUT_ITEMS + 1) is None


def test_input_items_are_listed_with_ids() -> None:
    first, last = kept().listed_items(PLACE)
    assert first["id"] == item_id("msg_", PLACE, INPUT_ITEMS) and first["type"] == "message"
    assert first["content"] == [{"type": "input_text", "text": "hello"}]
    assert last == {**ITEMS[2], "id": item_id("fco_", PLACE, INPUT_ITEMS + 2)}, "ids of clients may stand for several"
    other = SaidInTurn([{"type": "made_up"}], []).listed_items(PLACE)
    assert other == [{"type": "made_up", "id": item_id("item_", PLACE, INPUT_ITEMS)}]


def test_listed_items_are_shown_as_their_client_got_them() -> None:
    """Of an output its opaque texts; what a client has sent itself stays as it is."""
    mine = {"type": "message", "encrypted_content": True}
    made = write_record([mine], {**RESPONSE, "output": [{**THOUGHT, "id": item_id("rs_", PLACE, 0)}]})
    said = read_said(made)
    assert said is not None
    own, thought = shown_items([*said.listed_items(PLACE), *said.output])
    assert own == {**mine, "id": item_id("msg_", PLACE, INPUT_ITEMS)}
    assert thought == {**THOUGHT, "id": item_id("rs_", PLACE, 0)}


def test_what_is_no_record_is_none() -> None:
    for content in (b"", b"[]", b"{}", b'{"items":[]}', b'{"items":5,"output":[]}', b'{"items":[],"output":5}'):
        assert read_said(content) is None and read_response(content + b"\n{}") is None
    assert read_response(b'{"items":[],"output":[]}') is None
