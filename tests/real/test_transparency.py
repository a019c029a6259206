"""With no policy and no resume, an answer through the gateway equals the node's own: status, content type, every field,
every event.

Compared strictly (order of fields, digits of numbers, cuts between events), ids and times aside: see answers.py. What
may differ is this list and nothing else:

1. Comments in a stream: the gateway sends keep-alives of its own.
2. What the gateway cannot pass on, since it has to read it: a body that is no JSON object, fields of a wrong type that
   it must understand itself, a model that it does not have. Same status, its own words, in the dialect's error format.
3. `system_fingerprint` at the end of a stream of several choices where usage was not asked for: the gateway asks for
   it, and vLLM then puts the fingerprint on the usage event. With one choice it is put back.
4. The type of the event that ends a truncated response: vLLM before 0.33 calls it completed.
"""

import json
from typing import Any

import httpx
import pytest

from tests.real.answers import Answer, Event, difference, read_answer, without
from tests.real.conftest import Server
from tests.real.merging import merged
from tests.real.transparency_cases import CASES, COUNT_TOKENS, MESSAGES, Case

pytestmark = pytest.mark.real

ATTEMPTS = 3
WITHOUT_FINGERPRINT = ("chat: two answers, streamed", "completions: several prompts, streamed")
OWN_WORDS = (
    "completions: prompt of a wrong type",
    "not JSON",
    "not an object",
    "unknown model",
    "chat: stream options of a wrong type",
    "chat: negative budget",
    "chat: unknown effort",
)


def _names(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", [case for case in CASES if not case.name.startswith(OWN_WORDS)], ids=_names)
def test_the_same_answer(case: Case, vllm: Server, passing: Server) -> None:
    """Word for word, in the same events; after three attempts on a busy machine in the same meaning."""
    if case.warm:
        ask(vllm, case)
    for _ in range(ATTEMPTS):
        direct, through = ask(vllm, case), ask(passing, case)
        assert direct.status == case.status
        direct = _ended_as_openais(direct)
        if case.name in WITHOUT_FINGERPRINT:
            direct = without(direct, "system_fingerprint")
        if not difference(direct, through):
            return
        # Another cut between the events is fair on a busy machine, another meaning never is.
        assert not difference(merged(direct), merged(through))


def _ended_as_openais(answer: Answer) -> Answer:
    last = answer.content[-1] if isinstance(answer.content, list) and answer.content else None
    if not isinstance(last, Event) or last.name != "response.completed":
        return answer
    if ("status", "incomplete") not in dict(last.data)["response"]:
        return answer
    data = [(name, "response.incomplete" if name == "type" else value) for name, value in last.data]
    return Answer(answer.status, answer.content_type, [*answer.content[:-1], Event("response.incomplete", data)])


@pytest.mark.parametrize("case", [case for case in CASES if case.name.startswith(OWN_WORDS)], ids=_names)
def test_own_words_in_the_dialects_format(case: Case, vllm: Server, passing: Server) -> None:
    """The status that the node would have given, and an error that the dialect's clients can read."""
    direct, through = ask(vllm, case), ask(passing, case)
    assert (through.status, through.content_type) == (direct.status, direct.content_type)
    assert direct.status == case.status
    answer = dict(through.content)
    error: dict[str, Any] = dict(answer["error"])
    if case.path in (MESSAGES, COUNT_TOKENS):
        assert answer["type"] == "error"
        assert error["type"] == ("not_found_error" if case.status == httpx.codes.NOT_FOUND else "invalid_request_error")
    else:
        assert set(error) == {"message", "type", "param", "code"}
        assert error["type"] == "invalid_request_error"
    assert error["message"]


def test_enough_cases() -> None:
    """The table covers what it promises, and no name stands for two requests."""
    assert len({case.name for case in CASES}) == len(CASES) >= 150


def test_one_model_is_an_entry_of_the_list(gateway: Server) -> None:
    """vLLM has no route for one model; clients of OpenAI's API expect one."""
    with gateway.client() as client:
        entries = client.get("/v1/models").json()["data"]
        one = client.get(f"/v1/models/{gateway.model}").json()
    volatile = {"created", "permission"}
    assert one.keys() == entries[0].keys()
    assert {k: v for k, v in one.items() if k not in volatile} == {
        k: v for k, v in entries[0].items() if k not in volatile
    }


def ask(server: Server, case: Case) -> Answer:
    """Send the case's request."""
    headers = {"content-type": "application/json", **case.headers}
    body = case.body if isinstance(case.body, bytes) else json.dumps(case.body).encode()
    with server.client() as client:
        return read_answer(
            client.request(case.method, case.path, content=body if case.method == "POST" else None, headers=headers)
        )
