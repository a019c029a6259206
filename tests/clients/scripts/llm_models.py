"""llm, by its file of further OpenAI models."""

import json
from pathlib import Path

import llm

from tests.clients.proof import KEY, MODEL, QUESTION, URL, WRONG_KEY, prove


def model_of(key: str):
    """llm's model, read from extra-openai-models.yaml and keys.json in its folder; JSON is YAML."""
    place = {"api_base": f"{URL}/v1", "api_key_name": "fleetgate"}
    entry = {"model_id": "fleetgate", "model_name": MODEL, "reasoning": True, **place}
    folder = Path(llm.user_dir())
    (folder / "extra-openai-models.yaml").write_text(json.dumps([entry]))
    (folder / "keys.json").write_text(json.dumps({"fleetgate": key}))
    return llm.get_model("fleetgate")


def plain() -> None:
    """A prompt, whole. Thinking is off, as llm passes no budget on and a tiny model ends within its thoughts."""
    response = model_of(KEY).prompt(QUESTION, stream=False, max_tokens=100, temperature=0, reasoning_effort="none")
    print(response.text(), response.usage())
    assert response.text()
    assert response.usage().output > 0


def streaming() -> None:
    """Pieces of the text."""
    pieces = list(model_of(KEY).prompt(QUESTION, max_tokens=100, temperature=0, reasoning_effort="none"))
    assert len(pieces) > 1


def wrong_key() -> None:
    """OpenAI's error in llm's own."""
    try:
        model_of(WRONG_KEY).prompt(QUESTION, stream=False).text()
    except Exception as error:  # noqa: BLE001 - llm.ModelError or OpenAI's
        assert "API key is not valid" in str(error)
    else:
        raise AssertionError("a wrong key was taken")


if __name__ == "__main__":
    no_tools = "llm cannot force a call, and a tiny model makes none by itself"
    where = "dropped by the client on chat"
    prove("llm", reasoning=where, plain=plain, streaming=streaming, tools=no_tools, wrong_key=wrong_key)
