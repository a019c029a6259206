"""Each reason of docs/fields.md by which the gateway refuses a request holds: a request for each."""

import json
import re

import pytest

from gateway.core.dialects import DIALECTS
from gateway.core.errors import InvalidRequest
from tests.sdks.drawing import Body
from tests.sdks.pages import refusals
from tests.sdks.reasons import REASONS, reasons_in

BY_PATH = {dialect.path: dialect for dialect in DIALECTS}
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"


def result_of(part: Body) -> Body:
    return {"input": [{"type": "function_call_output", "call_id": "c", "output": [part]}]}


def turn_of(part: Body) -> Body:
    return {"input": [{"role": "user", "content": [part]}]}


REFUSED: dict[tuple[str, str], Body] = {
    (RESPONSES, "background"): {"background": True, "store": True},
    (RESPONSES, "prompt"): {"prompt": {"id": "pmpt_1"}},
    (RESPONSES, "input.N.type"): {"input": [{"type": "item_reference", "id": "msg_1"}]},
    (RESPONSES, "input.N.encrypted_content"): {
        "input": [{"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAAA"}, {"role": "user", "content": "x"}]
    },
    (RESPONSES, "input.N.content.N.type"): turn_of({"type": "input_file", "file_id": "file-1"}),
    (RESPONSES, "input.N.content.N.file_id"): turn_of({"type": "input_image", "detail": "auto", "file_id": "file-1"}),
    (RESPONSES, "input.N.output.N.type"): result_of({"type": "input_file", "file_id": "file-1"}),
    (RESPONSES, "input.N.output.N.file_id"): result_of({"type": "input_image", "file_id": "file-1"}),
    (MESSAGES, "tools.N.input_schema"): {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
    (MESSAGES, "messages.N.content.N.type"): {
        "messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "file", "file_id": "f"}}]}]
    },
}


def test_every_reason_of_the_gateways_is_tried() -> None:
    assert set(REFUSED) == {reason for reason, by in refusals().items() if by != "node"}
    assert set(refusals()) == set(REASONS)


@pytest.mark.parametrize("reason", REFUSED, ids=" ".join)
def test_it_is_refused_for_that(reason: tuple[str, str]) -> None:
    path, field = reason
    base: Body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9} if path == MESSAGES else {}
    body = {"model": "m", **base, **({"input": "hi"} if path == RESPONSES else {}), **REFUSED[reason]}
    dialect = BY_PATH[path]
    with pytest.raises(InvalidRequest) as refused:
        dialect.over_chat(json.loads(json.dumps(dialect.read(json.dumps(body).encode()).body)))
    assert re.sub(r"\b\d+\b", "N", refused.value.param or "") == field
    assert field in reasons_in(path, body)
