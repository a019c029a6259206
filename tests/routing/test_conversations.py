"""What a conversation is recognised by, and what tells two apart."""

from typing import Any

import pytest

from gateway.core.routing.conversations import EDGE, KEY_BYTES, ConversationNaming, conversation_of

NAMING = ConversationNaming((b"x-session-id",))
OPENING = [{"role": "system", "content": "You are an agent. " * 300}, {"role": "user", "content": "Mend the roof."}]


def key(body: dict[str, Any], tenant: str = "t", naming: ConversationNaming = NAMING, **headers: str) -> bytes:
    sent = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return conversation_of(body, sent, tenant, naming)


def chat(*more: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"messages": [*OPENING, *more], **fields}


LATER = ({"role": "assistant", "content": "It is mended."}, {"role": "user", "content": "And the door?"})


def test_a_conversation_is_the_same_from_turn_to_turn() -> None:
    assert key(chat()) == key(chat(*LATER))
    assert len(key(chat())) == KEY_BYTES


@pytest.mark.parametrize(
    "other",
    [
        {"messages": [OPENING[0], {"role": "user", "content": "Mend the roof!"}]},
        {"messages": [{"role": "system", "content": OPENING[0]["content"] + "."}, OPENING[1]]},
        {"messages": OPENING, "tools": [{"type": "function", "function": {"name": "hammer"}}]},
        {"messages": [OPENING[0], {"role": "user", "content": [{"type": "text", "text": "Mend it all."}]}]},
        {"system": "You are", "messages": OPENING[1:]},
        {"instructions": "You are", "input": "Mend the roof."},
        {"prompt": "Mend the roof."},
        {},
    ],
)
def test_another_opening_is_another_conversation(other: dict[str, Any]) -> None:
    assert key(other) != key(chat())


def test_long_texts_that_differ_at_either_end_are_told_apart() -> None:
    middle = "x" * 5000
    keys = {
        key({"messages": [{"role": "user", "content": text}]}) for text in (f"a{middle}", f"b{middle}", f"{middle}a")
    }
    assert len(keys) == 3


def test_a_growing_prompt_keeps_its_conversation() -> None:
    beginning = "word " * 1000
    assert key({"prompt": beginning}) == key({"prompt": beginning + "and on"})
    ids = list(range(2000))
    assert key({"prompt": ids}) == key({"prompt": [*ids, 7]}) == key({"prompt": [ids]})


def test_what_the_client_calls_it_goes_before_its_opening() -> None:
    assert key({"prompt_cache_key": "one", **chat()}) == key({"prompt_cache_key": "one", "messages": []})
    by_user = ConversationNaming((), by_user=True)
    assert key(chat(user="u"), naming=by_user) == key({"user": "u"}, naming=by_user)


def test_a_session_is_joined_with_its_opening() -> None:
    assert key(chat(), x_session_id="one") == key(chat(*LATER), x_session_id="one")
    different = {key(chat()), key(chat(), x_session_id="one"), key(chat(), x_session_id="two")}
    assert len(different | {key({"messages": []}, x_session_id="one")}) == 4


def test_the_attribution_is_no_part_of_an_opening() -> None:
    """Whether it is a block of its own, or the first line of the system prompt."""

    def with_block(nonce: str) -> dict[str, Any]:
        block = {"type": "text", "text": f"x-anthropic-billing-header: cc_version=2; cch={nonce};"}
        return {"system": [block, {"type": "text", "text": "You are an agent."}], "messages": OPENING[1:]}

    def with_line(nonce: str, prompt: str = "You are an agent. ") -> dict[str, Any]:
        return {"system": f"x-anthropic-billing-header: cch={nonce};\n{prompt * 200}", "messages": OPENING[1:]}

    assert key(with_block("1f2e3")) == key(with_block("00a1b"))
    assert (
        key(with_line("1f2e3"))
        == key(with_line("00a1b"))
        == key({**with_line(""), "system": "You are an agent. " * 200})
    )
    assert key(with_line("1f2e3")) != key(with_line("1f2e3", "You are a smith. "))


def test_a_user_names_a_conversation_only_where_that_is_configured() -> None:
    assert key(chat(user="u")) == key(chat(user="v"))
    by_user = ConversationNaming((), by_user=True)
    assert key(chat(user="u"), naming=by_user) != key(chat(user="v"), naming=by_user)
    assert key({"metadata": {"user_id": "u"}}, naming=by_user) == key({"user": "u"}, naming=by_user)


def test_tenants_do_not_share_names() -> None:
    assert key({"prompt_cache_key": "one"}, tenant="a") != key({"prompt_cache_key": "one"}, tenant="b")


@pytest.mark.parametrize(
    "odd",
    [
        {"messages": "text"},
        {"messages": [None, 3, {"content": None}, {"role": "user", "content": [None, {"text": 4}, {}]}]},
        {"tools": [3], "messages": [{}]},
        {"tools": {}, "prompt": {"a": 1}},
        {"prompt": [], "system": 7, "input": []},
        {"prompt_cache_key": "", "user": 3, "metadata": []},
        {"messages": [{"role": "user", "content": "\ud800"}], "prompt_cache_key": "\udfff"},
    ],
)
def test_odd_bodies_have_a_conversation_too(odd: dict[str, Any]) -> None:
    assert len(key(odd, naming=ConversationNaming((), by_user=True))) == KEY_BYTES


@pytest.mark.parametrize(
    "body",
    [
        lambda odd: {"tools": [{"name": odd}], "input": "hi"},
        lambda odd: {"tools": [{"function": {"name": "x" * EDGE + odd[0]}}], "input": "hi"},
        lambda odd: {"messages": [{"role": "user", "content": [{"type": odd}]}]},
        lambda odd: {"input": [1, odd]},
        lambda odd: {"prompt": [[1, {"a": odd}]]},
    ],
)
def test_what_is_no_name_is_not_written_out(body: Any) -> None:
    """It may have the length of the whole body: the event loop would stand still for it."""
    one, other = (conversation_of(body([word]), {}, "t", ConversationNaming()) for word in ("a", "b"))
    assert one == other
