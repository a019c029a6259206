"""Promises about refusals, word for word where a client may look."""

from typing import Any

from tests.contract.client import CHAT, COMPLETIONS, QUESTION, USAGE, NodeClient


def _schema_error(kind: str, loc: str, message: str, shown: str, more: str = "") -> str:
    return f"1 validation error:\n  {{'type': '{kind}', 'loc': '{loc}', 'msg': '{message}', 'input': '{shown}'{more}}}"


_DICTIONARY = "Input should be a valid dictionary or object to extract fields from"
_NUMBER = "Input should be a valid number, unable to parse string as a number"


async def errors(node: NodeClient) -> None:
    """Refusals, word for word."""
    hot = _schema_error("float_parsing", "body.temperature", _NUMBER, "hot")
    no_list = _schema_error("model_attributes_type", "body", _DICTIONARY, "<list of 1 items>")
    missing = _schema_error("missing", "body.messages", "Field required", "<dict of 0 items>")
    options = "Stream options can only be defined when `stream=True`. (parameter=stream_options)"
    prompt = "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)"
    choice = "When using `tool_choice`, `tools` must be set. (parameter=tool_choice)"
    budget = "`thinking_token_budget` must be a non-negative integer or -1 for unlimited."
    wrong_budget = f"{budget} (parameter=thinking_token_budget, value=-5)"
    wizard = [{"role": "wizard", "content": "x"}]
    cold = "temperature must be non-negative, got -1.0. (parameter=temperature, value=-1.0)"
    table: tuple[tuple[str, Any, str, str, str | None], ...] = (
        (CHAT, [1], no_list, "Bad Request", "body"),
        (CHAT, {}, missing, "Bad Request", "body.messages"),
        (CHAT, node.ask({"temperature": "hot"}), hot, "Bad Request", "body.temperature"),
        (CHAT, node.ask({"temperature": -1}), cold, "BadRequestError", "temperature"),
        (CHAT, node.ask({"n": 0}), "n must be at least 1, got 0.", "BadRequestError", None),
        (CHAT, node.ask({"stream_options": USAGE}), options, "BadRequestError", "stream_options"),
        (CHAT, node.ask({"tool_choice": "auto"}), choice, "BadRequestError", "tool_choice"),
        (CHAT, node.ask({"thinking_token_budget": -5}), wrong_budget, "BadRequestError", "thinking_token_budget"),
        (CHAT, {"messages": wizard}, "Unexpected message role: wizard", "BadRequestError", None),
        (COMPLETIONS, {}, prompt, "BadRequestError", "prompt"),
    )  # fmt: skip
    for path, body, message, kind, param in table:
        response = await node.post(path, body)
        assert response.status_code == 400
        assert response.json()["error"] == {"message": message, "type": kind, "param": param, "code": 400}


async def more_errors(node: NodeClient) -> None:
    """Unknown model, no JSON, wrong content type, too long, on all four dialects."""
    text = "The model `nope` does not exist. Valid aliases: "
    for path, body in (
        (CHAT, {"messages": QUESTION}),
        (COMPLETIONS, {"prompt": "x"}),
        ("/v1/responses", {"input": "x"}),
        ("/v1/messages", {"messages": QUESTION, "max_tokens": 5}),
    ):
        unknown = await node.post(path, {**body, "model": "nope"})
        assert unknown.status_code == 404
        assert unknown.json()["error"]["message"].startswith(text)
        assert unknown.json()["error"]["type"] == "NotFoundError"
        assert ("type" in unknown.json()) == (path == "/v1/messages")
        broken = await node.http.post(path, content=b"{nope", headers={"content-type": "application/json"})
        assert broken.status_code == 400
        assert broken.json()["error"]["param"] == "body.1"
        plain = await node.http.post(path, content=b"{}", headers={"content-type": "text/plain"})
        assert "Only 'application/json' is allowed" in plain.json()["error"]["message"]
    window = (await node.http.get("/v1/models")).json()["data"][0]["max_model_len"]
    long = [{"role": "user", "content": "word " * (window + 200)}]
    for stream in (False, True):
        refused = await node.post(CHAT, {"messages": long, "stream": stream})
        assert refused.json()["error"]["param"] == "input_tokens"
        assert refused.json()["error"]["message"].startswith(f"This model's maximum context length is {window} tokens.")
    over = (await node.post(CHAT, node.ask({"max_tokens": window + 1}))).json()["error"]
    assert over["param"] == "max_tokens"
    missing = (await node.post("/v1/messages", {})).json()["error"]
    assert missing["param"] == "body.model"
    assert missing["message"].startswith("3 validation errors:")
    small = {"messages": QUESTION, "max_tokens": 50, "model": node.model}
    budget = await node.post("/v1/messages", {**small, "thinking": {"type": "enabled", "budget_tokens": 16}})
    assert budget.json()["error"]["param"] == "body.thinking.enabled.budget_tokens"
