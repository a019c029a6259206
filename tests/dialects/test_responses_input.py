"""Requests of responses with what no node understands, made what it does: history, compactions, custom tools."""

import json
from typing import Any

import pytest

from gateway.core.dialects.opaque_text import COMPACTION, REASONING, decode_text, encode_text
from gateway.core.dialects.responses import Responses
from gateway.core.dialects.responses_input import SUMMARY_LEAD
from gateway.core.errors import InvalidRequest
from gateway.core.thinking.sizes import estimate_input

Json = dict[str, Any]
SAID = {"type": "message", "role": "user", "content": "hi"}
TEXT = "Über \U0001f30d,\n42."
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}


def read(*items: Any, **fields: Any) -> Json:
    """The body that is sent to nodes, whose bytes and values agree."""
    ask = Responses().read(json.dumps({"model": "m", "input": list(items), **fields}).encode())
    assert json.loads(ask.raw) == ask.body
    return ask.body


def items(*given: Any) -> list[Any]:
    made = read(*given)["input"]
    assert isinstance(made, list)
    return made


def thought(encrypted: Any, **fields: Any) -> Json:
    return {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": encrypted, **fields}


@pytest.mark.parametrize("kind", [REASONING, COMPACTION])
@pytest.mark.parametrize("text", ["", "a", TEXT, "\x00", "a" * 100_000])
def test_a_text_comes_back(kind: str, text: str) -> None:
    kept = encode_text(kind, text)
    assert kept.isascii() and json.loads(json.dumps(kept)) == kept
    assert decode_text(kind, kept) == text


@pytest.mark.parametrize("value", ["", "gAAAA", REASONING[:-1], REASONING + "?", REASONING + "a", REASONING + "_w=="])
def test_another_vendors_text_is_none(value: str) -> None:
    assert decode_text(REASONING, value) is None
    assert decode_text(REASONING, encode_text(COMPACTION, "a")) is None


def test_half_a_character_is_no_error() -> None:
    assert decode_text(REASONING, encode_text(REASONING, "a\ud800b")) == "a?b"


@pytest.mark.parametrize("character", ["\0", "\x1b", "\n", '"', "\\", "\x7f", "é", "\U0001f600"])
def test_a_body_hardly_grows_by_what_it_keeps(character: str) -> None:
    """Memory was reserved for the body as it came."""
    for text in (character * 3000, f"{'Hm. ' * 300}{character * 15}"):
        item = {"type": "reasoning", "encrypted_content": encode_text(REASONING, text)}
        raw = json.dumps({"model": "m", "input": [item]}).encode()
        assert len(Responses().read(raw).raw) < 1.6 * len(raw)
    assert decode_text(REASONING, encode_text(REASONING, text)) == text


def test_a_thought_comes_back_without_its_content() -> None:
    """As Codex sends it."""
    made = items(SAID, thought(encode_text(REASONING, TEXT)), SAID)
    content = [{"type": "reasoning_text", "text": TEXT}]
    assert made == [SAID, {"type": "reasoning", "id": "rs_1", "summary": [], "content": content}, SAID]


def test_what_a_thought_shows_is_believed_first() -> None:
    content = [{"type": "reasoning_text", "text": "shown"}]
    assert items(thought(encode_text(REASONING, "kept"), content=content))[0]["content"] == content
    empty = items(thought(encode_text(REASONING, "kept"), content=[]))
    assert empty[0]["content"] == [{"type": "reasoning_text", "text": "kept"}]


@pytest.mark.parametrize("encrypted", ["gAAAA", encode_text(COMPACTION, "x")])
def test_another_vendors_thought_leaves_its_summary(encrypted: str) -> None:
    summary = [{"type": "summary_text", "text": "in short"}]
    kept = items(SAID, thought(encrypted, summary=summary))
    assert kept == [SAID, {"type": "reasoning", "id": "rs_1", "summary": summary}]
    assert items(SAID, thought(encrypted), SAID) == [SAID, SAID]


@pytest.mark.parametrize("encrypted", [None, ""])
def test_a_thought_without_it_stays_as_it_came(encrypted: Any) -> None:
    assert items(SAID, thought(encrypted)) == [SAID, thought(encrypted)]


def test_a_compaction_is_a_message_of_the_user() -> None:
    kept = items({"type": "compaction", "id": "cmp_1", "encrypted_content": encode_text(COMPACTION, TEXT)}, SAID)
    assert kept == [{"type": "message", "role": "user", "content": SUMMARY_LEAD + TEXT}, SAID]


def test_a_compaction_counts_as_its_text() -> None:
    text = "word " * 1000
    sent = read({"type": "compaction", "encrypted_content": encode_text(COMPACTION, text)})
    said = {"input": SUMMARY_LEAD + text}
    assert estimate_input(sent, 4.0) == pytest.approx(estimate_input(said, 4.0), abs=10)


@pytest.mark.parametrize(
    ("item", "param", "code"),
    [
        ({"type": "compaction", "encrypted_content": "gAAAA"}, "input.1.encrypted_content", "unknown_compaction"),
        (
            {"type": "compaction", "encrypted_content": encode_text(REASONING, "a")},
            "input.1.encrypted_content",
            "unknown_compaction",
        ),
        ({"type": "compaction"}, "input.1.encrypted_content", "invalid_type"),
        ({"type": "compaction", "encrypted_content": 3}, "input.1.encrypted_content", "invalid_type"),
        (thought(["a"]), "input.1.encrypted_content", "invalid_type"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(item: Json, param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(SAID, item)
    assert (refused.value.param, refused.value.code) == (param, code)
    assert param in refused.value.message


@pytest.mark.parametrize("kind", ["web_search_call", "file_search_call", "image_generation_call", "mcp_list_tools"])
def test_tools_that_openai_ran_are_left_out(kind: str) -> None:
    assert items(SAID, {"type": kind, "id": "x", "status": "completed"}, SAID) == [SAID, SAID]


@pytest.mark.parametrize("kind", [None, 3, [], {}, "unheard_of", "local_shell_call"])
def test_everything_else_is_the_nodes_to_judge(kind: Any) -> None:
    odd = ["a", 3, None, {"type": kind}]
    assert items(*odd) == odd
    assert Responses().read(b'{"input": "hi"}').raw == b'{"input": "hi"}'


def test_a_grammar_is_told_to_the_model() -> None:
    patch = {"type": "custom", "name": "apply_patch", "description": "Edits files.", "format": GRAMMAR}
    plain = {"type": "custom", "name": "say", "format": {"type": "text"}}
    made = read(SAID, tools=[plain, patch, {"type": "web_search"}])["tools"]
    told = "Edits files.\n\nThe input follows this grammar (lark):\nstart: /.+/"
    assert made == [plain, {**patch, "format": {"type": "text"}, "description": told}, {"type": "web_search"}]


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({"type": "grammar"}, ""),
        ({**GRAMMAR, "syntax": "regex"}, "The input follows this grammar (regex):\nstart: /.+/"),
    ],
)
def test_a_grammar_that_is_less(form: Json, told: str) -> None:
    made = read(SAID, tools=[{"type": "custom", "name": "run", "format": form}])["tools"]
    assert made == [{"type": "custom", "name": "run", "format": {"type": "text"}, "description": told}]


def test_what_stands_beside_it_keeps_its_numbers() -> None:
    """Beyond 64 bits, which the parser rounds."""
    large = {"type": "function", "name": "f", "parameters": {"maximum": 10**30}}
    custom = {"type": "custom", "name": "run", "format": GRAMMAR}
    assert read(SAID, tools=[large, custom])["tools"][0]["parameters"]["maximum"] == 10**30


def test_a_grammar_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(SAID, tools=[{"type": "custom", "name": "run", "format": {**GRAMMAR, "definition": 3}}])
    assert refused.value.param == "tools.0.format.definition"
