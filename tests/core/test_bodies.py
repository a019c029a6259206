"""Bodies: read as strictly as JSON is, edited without touching what was not asked for."""

import json
import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.bodies import LARGE, MAX_DEPTH, parse_body, parse_steps, parse_trusted
from gateway.core.body_edits import edit_body, insert_fields
from gateway.core.errors import InvalidRequest
from gateway.core.http.json_size import JsonSize
from gateway.core.json_text import dump

NAMES = ("model", "stream", "stream_options", "priority", "x", 'mo"del', "mode\\l", "", "é", "a:b")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ['"model"', '"model":"a"', '\\"model\\":', '":', '\\":', '\\\\":', " :", "{", "}", "\\", '"', "\u2028", "model"]
)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False, allow_infinity=False) | texts
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
bodies = st.dictionaries(st.sampled_from(NAMES) | texts, values, max_size=5)


@st.composite
def spelled(draw: st.DrawFn, value: Any) -> str:
    """JSON text for `value`, with blanks and escapes where JSON allows them."""
    blank = draw(st.sampled_from(["", "", " ", "\n", "\t ", "\r\n"]))
    if isinstance(value, dict):
        fields = [f"{draw(spelled(key))}{blank}:{blank}{draw(spelled(item))}" for key, item in value.items()]
        return "{" + blank + f"{blank},{blank}".join(fields) + blank + "}"
    if isinstance(value, list):
        return "[" + blank + f",{blank}".join(draw(spelled(item)) for item in value) + blank + "]"
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=draw(st.booleans()))
        if draw(st.booleans()):
            text = text.replace("/", "\\/").replace("o", "\\u006f").replace("m", "\\u006D")
        return text
    return json.dumps(value)


raws = bodies.flatmap(lambda body: spelled(body).map(lambda text: (body, text.encode())))


def exact(raw: bytes) -> Any:
    """What Python's own parser reads, integers of any size included."""
    return json.loads(raw)


@given(raws)
def test_a_large_body_is_read_as_a_small_one_is(pair: tuple[dict[str, Any], bytes]) -> None:
    body, raw = pair
    padded = raw[:-1].rstrip() + (b"," if body else b"") + b'"pad":"' + b"x" * LARGE + b'"}'
    for read in (list(parse_steps(padded))[-1], parse_body(padded)):
        assert read == parse_body(raw) | {"pad": "x" * LARGE}


@given(raws, st.sampled_from(['"pad"', '"p\\u0061d"']))
def test_a_key_that_is_twice_in_a_large_body_is_found(pair: tuple[dict[str, Any], bytes], key: str) -> None:
    body, raw = pair
    comma = b"," if body else b""
    twice = raw[:-1].rstrip() + comma + b'"pad":1,' + key.encode() + b':"' + b"x" * LARGE + b'"}'
    with pytest.raises(InvalidRequest, match="'pad' appears twice"):
        list(parse_steps(twice))


def test_a_byte_order_mark_is_told() -> None:
    with pytest.raises(InvalidRequest, match="byte order mark"):
        parse_body(b'\xef\xbb\xbf{"model":"m"}')


@given(raws)
def test_reading_gives_what_json_gives(pair: tuple[dict[str, Any], bytes]) -> None:
    body, raw = pair
    read = parse_body(raw)
    assert json.dumps(read, sort_keys=True, default=str).count(":") >= len(read)
    assert list(read) == list(body)
    for key, value in read.items():
        assert _same(value, body[key])


@given(raws, st.dictionaries(st.sampled_from(NAMES), values, max_size=3), st.frozensets(st.sampled_from(NAMES)))
@settings(max_examples=200)
def test_an_edit_changes_its_fields_and_no_other(
    pair: tuple[dict[str, Any], bytes], changes: dict[str, Any], removals: frozenset[str]
) -> None:
    body, raw = pair
    removals -= changes.keys()
    edited = edit_body(raw, parse_body(raw), changes, removals)
    expected = {key: value for key, value in body.items() if key not in removals} | changes
    assert exact(edited) == expected
    assert parse_body(edited).keys() == expected.keys()


@given(raws)
def test_without_an_edit_the_bytes_stay(pair: tuple[dict[str, Any], bytes]) -> None:
    _, raw = pair
    assert edit_body(raw, parse_body(raw), {}, frozenset({"not there"})) is raw


@given(bodies, texts, texts, bodies)
def test_a_replaced_string_leaves_the_rest_to_the_letter(
    before: dict[str, Any], old: str, new: str, after: dict[str, Any]
) -> None:
    """The field that an alias is rewritten in, wherever it stands."""
    before.pop("model", None)
    for key in (*before, "model"):
        after.pop(key, None)
    raw = json.dumps({**before, "model": old, **after}, ensure_ascii=False).encode()
    edited = edit_body(raw, parse_body(raw), {"model": new}, frozenset())
    assert exact(edited) == {**before, "model": new, **after}
    assert list(exact(edited)) == list(exact(raw))


@given(bodies, st.dictionaries(st.text(min_size=9, max_size=12), values, min_size=1, max_size=2))
def test_inserted_fields_stand_first_and_the_rest_stays_as_it_came(body: dict[str, Any], added: dict[str, Any]) -> None:
    raw = b" \n{ " + dump(body)[1:]
    done = insert_fields(raw, added)
    assert done.endswith(dump(body)[1:])
    assert exact(done) == {**added, **body}


@pytest.mark.parametrize(
    ("raw", "changed"),
    [
        (b'{"model":"a"}', b'{"model":"b"}'),
        (b'{ "model" : "a" , "x" : 1.0 }', b'{ "model" : "b" , "x" : 1.0 }'),
        (b'{"x":"model","model":"a"}', b'{"x":"model","model":"b"}'),
        (b'{"x":{"model":"a"},"model":"a"}', b'{"x":{"model":"a"},"model":"b"}'),
        (b'{"x":"\\"model\\":\\"a\\"","model":"a"}', b'{"x":"\\"model\\":\\"a\\"","model":"b"}'),
        (b'{"x":{"model":"a"},"\\u006dodel":"a"}', b'{"x":{"model":"a"},"model":"b"}'),
        (b'{"model":"\\u0061"}', b'{"model":"b"}'),
        (b'{"model":null}', b'{"model":"b"}'),
        (b"{}", b'{"model":"b"}'),
        (b"{ }", b'{ "model":"b"}'),
        (b'{"x":1}', b'{"model":"b","x":1}'),
    ],
)
def test_examples_of_edits(raw: bytes, changed: bytes) -> None:
    assert edit_body(raw, parse_body(raw), {"model": "b"}, frozenset()) == changed


@pytest.mark.parametrize(
    ("value", "new"),
    [(b"100", 7), (b"-1", 0), (b"null", 7), (b"true", False), (b'{"a": [1, "\xc3\xa9}"]}', {"a": 1}), (b'"x"', None)],
)
def test_a_short_value_is_replaced_where_it_stands(value: bytes, new: object) -> None:
    """What stands around it stays to the letter: a long prompt is not written anew for a smaller budget."""
    raw = b'{ "prompt" : "\xc3\xa9 1.0", "k" : %b , "x" : 1.50 }' % value
    edited = edit_body(raw, parse_body(raw), {"k": new}, frozenset())
    assert edited == raw.replace(b'"k" : ' + value, b'"k" : ' + dump(new))


@pytest.mark.parametrize(
    "raw", [b'{"x":{"k":1},"k":1.50}', b'{"\\u006b":1.50,"x":{"k":1}}', b'{"k":"' + b"y" * 5000 + b'"}']
)
def test_where_the_place_is_not_certain_a_body_is_written_anew(raw: bytes) -> None:
    body = parse_body(raw)
    assert parse_body(edit_body(raw, body, {"k": 7}, frozenset())) == {**body, "k": 7}


@given(raws)
def test_what_is_read_again_is_exact(pair: tuple[dict[str, Any], bytes]) -> None:
    assert dump(parse_trusted(pair[1])) == dump(json.loads(pair[1]))


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**64, 123456789012345678901, 0.5, 1e300, -0.0])
def test_a_number_of_any_size_is_read_again_as_it_is(number: float) -> None:
    """A tool's id, say: over chat its call's arguments are written out of what was read again."""
    assert repr(parse_trusted(b'{"a":[{"b":%b}]}' % json.dumps(number).encode())["a"][0]["b"]) == repr(number)


def test_numbers_keep_their_value_where_a_body_is_written_anew() -> None:
    raw = b'{"priority":1,"a":123456789012345678901234567890,"b":1e2,"c":0.1,"d":-0.0,"e":18446744073709551616}'
    edited = edit_body(raw, parse_body(raw), {}, frozenset({"priority"}))
    assert exact(edited) == {"a": 123456789012345678901234567890, "b": 100.0, "c": 0.1, "d": 0.0, "e": 2**64}
    assert math.copysign(1, exact(edited)["d"]) == -1


HALF = {
    "a value": (b'{"a":{"b":["x","\\ud800"]}}', "a.b.1"),
    "its low half": (b'{"a":"\\udc00\\ud83d"}', "a"),
    "in capitals": (b'{"a":"cut \\uD83D"}', "a"),
    "beside a whole one": (b'{"a":"\\ud83d\\ude00","b":"\\ud83d\\ude00\\ude00"}', "b"),
    "a key": (b'{"a":{"\\ud800":1}}', "a"),
    "a key at the top": (b'{"\\ud800":1}', None),
}


@pytest.mark.parametrize("what", HALF)
def test_half_a_character_is_refused_where_it_stands(what: str) -> None:
    """JSON can spell it, UTF-8 cannot: a node's tokenizer cannot read it, and says so in words that help nobody."""
    raw, field = HALF[what]
    with pytest.raises(InvalidRequest) as refused:
        parse_body(raw)
    assert (refused.value.code, refused.value.param) == ("invalid_json", field)
    assert "surrogate" in refused.value.message
    refused.value.message.encode()


def test_whole_characters_pass_however_they_are_spelled() -> None:
    assert parse_body(b'{"a":"\\ud83d\\ude00 \\\\ud800"}') == {"a": "\U0001f600 \\ud800"}


@pytest.mark.parametrize("depth", [99, 100, 250, 260, 1020, 1030, 9000, 200_000])
@pytest.mark.parametrize("opens", [b"[", b'{"a":', b'[{"a":'])
def test_depth_is_bounded_before_anything_walks_a_body(depth: int, opens: bytes) -> None:
    """orjson reads 1,024 levels and writes 254, Python's parser about 1,000: each would fail in a way of its own."""
    closes = opens.replace(b'"a":', b"")[::-1].replace(b"[", b"]").replace(b"{", b"}")
    per = opens.count(b"[") + opens.count(b"{")
    levels = (depth - 1) // per
    raw = b'{"a":' + opens * levels + b"1" + closes * levels + b"}"
    if 1 + levels * per <= MAX_DEPTH:
        assert parse_body(raw) == parse_body(raw, strings_of([raw]))
        return
    for each in (raw, raw[: len(raw) // 2], b'{"b":1,"b":' + raw + b"}", raw.replace(b"1", b'"\\ud800"')):
        for strings in (0, strings_of([each])):
            with pytest.raises(InvalidRequest) as refused:
                parse_body(each, strings)
            assert refused.value.code in ("too_deeply_nested", "invalid_json", "duplicate_key")


@given(raws.filter(lambda pair: bool(pair[0])), st.data())
def test_a_key_given_twice_is_found_wherever_it_is(pair: tuple[dict[str, Any], bytes], data: st.DataObject) -> None:
    body, raw = pair
    key = data.draw(st.sampled_from(sorted(body)))
    again = data.draw(spelled(key)).encode() + b": 1"
    twice = raw.rstrip()[:-1] + b"," + again + b"}"
    nested = b'{"a": [1, {"b": ' + twice + b"}]}"
    for text in (twice, nested):
        for strings in (0, strings_of([text])):
            with pytest.raises(InvalidRequest) as caught:
                parse_body(text, strings)
            assert (caught.value.code, caught.value.param) == ("duplicate_key", key)


def strings_of(pieces: list[bytes]) -> int:
    size = JsonSize()
    for piece in pieces:
        size.feed(piece)
    return size.strings


def strings_in(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(strings_in, value.values()))
    return sum(map(strings_in, value)) if isinstance(value, list) else isinstance(value, str)


@given(raws, st.lists(st.integers(0, 400), max_size=6))
def test_strings_are_counted_wherever_a_body_is_cut(pair: tuple[dict[str, Any], bytes], cuts: list[int]) -> None:
    """So no body has to be parsed twice to find that no key stands twice."""
    body, raw = pair
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    pieces = [raw[start:end] for start, end in pairwise(edges)]
    assert strings_of(pieces) == strings_of([raw]) == strings_in(body)
    steps = list(parse_steps(raw, strings_of(pieces)))
    assert len(steps) == 2
    assert _same(steps[-1], body)


@given(raws, st.integers(0, 200))
def test_a_cut_body_is_never_read(pair: tuple[dict[str, Any], bytes], at: int) -> None:
    _, raw = pair
    cut = raw[: at % max(1, len(raw))]
    with pytest.raises(InvalidRequest):
        parse_body(cut)


@given(st.binary(max_size=40))
def test_whatever_comes_is_read_or_refused(raw: bytes) -> None:
    try:
        assert isinstance(parse_body(raw), dict)
    except InvalidRequest as error:
        assert error.code in ("invalid_json", "duplicate_key")
        assert len(error.message) < 300


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-1e999", b"01", b"+1", b".5", b"1."])
def test_what_is_no_number_of_json_is_refused(number: bytes) -> None:
    for raw in (b'{"a":%b}' % number, b'{"a" : [{"b":%b}]}' % number):
        with pytest.raises(InvalidRequest) as caught:
            parse_body(raw)
        assert caught.value.code == "invalid_json"


@pytest.mark.parametrize("opening", [b'{"a":', b'{"a" :'])
def test_the_bound_of_nesting_is_the_same_for_every_spelling(opening: bytes) -> None:
    for depth, good in ((MAX_DEPTH, True), (MAX_DEPTH + 1, False), (5000, False), (200_000, False)):
        for innermost in (b"{}", b"[]", b'{"a":"b"}'):
            raw = opening * (depth - 1) + innermost + b"}" * (depth - 1)
            for strings in (0, strings_of([raw])):
                try:
                    parse_body(raw, strings)
                except InvalidRequest as error:
                    assert not good and error.code == "too_deeply_nested"
                else:
                    assert good


def _same(read: Any, meant: Any) -> bool:
    """Equal, but for integers beyond 64 bits, which may have been rounded."""
    if isinstance(meant, dict):
        return read.keys() == meant.keys() and all(_same(read[key], meant[key]) for key in meant)
    if isinstance(meant, list):
        return len(read) == len(meant) and all(map(_same, read, meant))
    if type(meant) is int and not -(2**63) <= meant < 2**64:
        return math.isclose(read, meant)
    return bool(read == meant) and type(read) is type(meant)


@pytest.mark.parametrize("number", ["-9223372036854775809", "18446744073709551616", "-1" + "0" * 30, "1e30", "-7"])
@pytest.mark.parametrize("field", ["chat_template_kwargs", "stream_options"])
def test_an_object_that_gets_a_member_keeps_the_clients_numbers(number: str, field: str) -> None:
    """vLLM refuses an integer beyond 64 bits, and takes the float that it is rounded to."""
    raw = b'{"model":"m","%b":{"x":%b,"deep":[%b]}}' % (field.encode(), number.encode(), number.encode())
    body = parse_body(raw)
    edited = edit_body(raw, body, {field: {**body[field], "include_usage": True}}, frozenset())
    assert json.loads(edited)[field] == {"x": json.loads(number), "deep": [json.loads(number)], "include_usage": True}
    assert b"e+" not in edited or number == "1e30"
