"""What is an item's reference, what a request repeats, and which spellings say the same."""

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import InvalidRequest
from gateway.core.json_text import dump
from gateway.core.responses.items import (
    NO_ITEMS,
    Earlier,
    Repeated,
    fold,
    is_reference,
    listed,
    repeats,
    text_length,
    texts_as_parts,
)
from gateway.core.responses.kept_ids import INPUT_ITEMS, PLACE_BYTES, item_id, new_place

KEY = b"key"
PLACE = new_place(bytes(range(PLACE_BYTES)))
USER = {"type": "message", "role": "user", "content": "hello"}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
SAID = {
    "type": "message",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "hi", "annotations": [], "logprobs": []}],
}
TEXTS = st.text(max_size=6)
ITEMS = st.one_of(
    st.builds(lambda role, text: {"role": role, "content": text}, st.sampled_from(["user", "assistant"]), TEXTS),
    st.builds(lambda text: {"type": "reasoning", "content": [{"type": "reasoning_text", "text": text}]}, TEXTS),
    st.builds(lambda a, b: {"type": "function_call", "call_id": a, "name": b, "arguments": "{}"}, TEXTS, TEXTS),
    st.builds(lambda a, b: {"type": "function_call_output", "call_id": a, "output": b}, TEXTS, TEXTS),
    st.builds(lambda a: {"type": "made_up", "x": a}, TEXTS),
)


def test_a_reference_has_an_id_and_says_nothing() -> None:
    assert is_reference({"type": "item_reference", "id": "x"})
    assert is_reference({"id": "x"})
    for other in ({"id": "x", "role": "user"}, {"id": "x", "type": "message"}, {}, "x", None, ["id"]):
        assert not is_reference(other)


def test_an_input_is_a_text_or_a_list() -> None:
    assert listed("hello") == [USER]
    assert listed([CALL]) == [CALL]
    assert listed(None) == listed(5) == []


def test_what_comes_up_to_the_last_item_of_an_answer_may_be_repeated() -> None:
    answered = {**SAID, "id": item_id("msg_", PLACE, 0)}
    assert repeats([USER, answered, USER]) == Repeated(PLACE, 2)
    assert repeats([USER, answered, {**CALL, "id": item_id("fc_", PLACE, 1)}]) == Repeated(PLACE, 3)
    assert repeats([USER, {**USER, "id": item_id("msg_", PLACE, INPUT_ITEMS)}]) is None
    assert repeats([USER, {**SAID, "id": "msg_other"}, {**SAID, "id": 5}, "text"]) is None
    assert repeats([]) is None


@given(st.lists(ITEMS, max_size=6), st.integers(0, 6))
def test_a_digest_goes_on_from_that_of_the_beginning(items: list[Any], at: int) -> None:
    assert fold(KEY, fold(KEY, NO_ITEMS, items[:at]), items[at:]) == fold(KEY, NO_ITEMS, items)
    assert fold(KEY, NO_ITEMS, items) != fold(b"other", NO_ITEMS, items) or not items


@given(st.lists(ITEMS, min_size=1, max_size=4), st.lists(ITEMS, min_size=1, max_size=4))
def test_lists_that_say_another_thing_have_another_digest(one: list[Any], two: list[Any]) -> None:
    assert (fold(KEY, NO_ITEMS, one) == fold(KEY, NO_ITEMS, two)) == (one == two)


def digest(item: Any) -> str:
    return fold(KEY, NO_ITEMS, [item])


def test_what_clients_change_of_an_item_leaves_its_digest() -> None:
    """SDKs leave out a type, annotations, ids and statuses, and send a text alone for one part."""
    without_type = {"role": "user", "content": [{"type": "input_text", "text": "hello"}]}
    assert digest(USER) == digest(without_type) == digest({**USER, "id": "x", "status": "completed"})
    bare = {"role": "assistant", "content": [{"type": "output_text", "text": "hi"}], "status": "completed"}
    assert digest(SAID) == digest(bare) == digest({"role": "assistant", "content": "hi"})
    assert digest(CALL) == digest({**CALL, "id": "fc_1", "status": "completed"})
    thought = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "x"}], "summary": []}
    assert digest(thought) == digest({"type": "reasoning", "summary": [{"type": "summary_text", "text": "x"}]})


def test_what_an_item_says_is_in_its_digest() -> None:
    image = {"role": "user", "content": [{"type": "input_image", "image_url": "data:1", "detail": None}]}
    output = {"type": "function_call_output", "call_id": "c", "output": "sunny"}
    said: list[Any] = [USER, SAID, CALL, output, image, {**CALL, "name": "g"}, {**CALL, "arguments": "[]"}]
    said += [{**USER, "role": "system"}, {**output, "output": "rain"}, {**output, "call_id": "d"}, "text", 5, None]
    said += [{"role": "user", "content": [{"type": "input_image", "image_url": "data:2"}]}, {"role": "user"}]
    said += [{"type": "made_up", "a": 1}, {"type": "made_up", "a": 2}, {"role": "user", "content": ["loose"]}]
    assert len({digest(item) for item in said}) == len(said)
    assert digest(image) == digest({"role": "user", "content": [{"type": "input_image", "image_url": "data:1"}]})


def test_items_are_left_as_they_are() -> None:
    item = copy.deepcopy(SAID)
    digest(item)
    assert item == SAID


def test_a_text_alone_is_listed_as_a_part() -> None:
    assert texts_as_parts(USER)["content"] == [{"type": "input_text", "text": "hello"}]
    assert texts_as_parts({"role": "assistant", "content": "a"})["content"] == [{"type": "output_text", "text": "a"}]
    assert texts_as_parts(CALL) == CALL


def test_an_error_names_an_item_as_the_client_numbered_it() -> None:
    def told(earlier: Earlier, param: str | None) -> tuple[str | None, str]:
        error = earlier.own_words(InvalidRequest(f"The field {param!r} is odd.", param=param))
        return error.param, error.message

    assert told(Earlier(3, False), "input.3.type") == ("input.0.type", "The field 'input.0.type' is odd.")
    assert told(Earlier(3, False), "input.14") == ("input.11", "The field 'input.11' is odd.")
    assert told(Earlier(3, True), "input.3.content") == ("input", "The field 'input' is odd.")
    inside = "The field 'previous_response_id' (item 2 of its conversation) is odd."
    assert told(Earlier(3, False), "input.2.content") == ("previous_response_id", inside)
    for param in ("model", "input", None, "input.x"):
        assert told(Earlier(3, False), param) == (param, f"The field {param!r} is odd.")
    assert told(Earlier(0, False), "input.3") == ("input.3", "The field 'input.3' is odd.")


def test_texts_are_counted_until_there_are_too_many() -> None:
    assert text_length([USER, CALL, 5, None, ["ab"]], 1000) == len("messageuserhellofunction_callcf{}ab")
    assert text_length([], 0) == 0 and 5 < text_length(["abc"] * 100, 5) < 10


@given(
    st.lists(
        st.recursive(
            st.text() | st.integers() | st.none(), lambda under: st.lists(under) | st.dictionaries(st.text(), under)
        )
    )
)
def test_no_item_is_shorter_than_its_texts(items: list[Any]) -> None:
    assert text_length(items, 10**9) <= len(dump(items))
