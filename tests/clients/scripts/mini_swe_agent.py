"""mini-swe-agent, whose model class goes through LiteLLM.

No command is run here: a model of 135M parameters is not to be trusted with a shell.
"""

from typing import Any

import litellm
from minisweagent.agents.default import DefaultAgent
from minisweagent.exceptions import Submitted
from minisweagent.models.litellm_model import LitellmModel

from tests.clients.proof import KEY, MODEL, URL, WRONG_KEY, prove

BASH = {"type": "function", "function": {"name": "bash"}}
# Sent over the client's own tool, whose command is free text: a model of 135M parameters does not come to its end.
COMMAND = {"type": "object", "properties": {"command": {"enum": ["ls", "pwd"]}}, "required": ["command"]}
TINY = {"tools": [{"type": "function", "function": {"name": "bash", "strict": True, "parameters": COMMAND}}]}
NO_THINKING = {"chat_template_kwargs": {"enable_thinking": False}}


class NoShell:
    """An environment that answers commands itself, and takes the second one for the submission."""

    config = None

    def __init__(self) -> None:
        self.commands: list[str] = []

    def execute(self, action: dict[str, Any], cwd: str = "") -> dict[str, Any]:
        self.commands.append(action["command"])
        if len(self.commands) > 1:
            extra = {"exit_status": "Submitted", "submission": "done"}
            raise Submitted({"role": "exit", "content": "done", "extra": extra})
        return {"output": "README.md", "returncode": 0, "exception_info": None}

    def get_template_vars(self, **kwargs: Any) -> dict[str, Any]:
        return {}

    def serialize(self) -> dict[str, Any]:
        return {}


def tools() -> None:
    """The agent's own loop: a forced call, its output, another call that submits."""
    environment = NoShell()
    place = {"api_base": f"{URL}/v1", "api_key": KEY, "max_tokens": 300, "temperature": 0}
    model = LitellmModel(model_name=f"hosted_vllm/{MODEL}", model_kwargs=place, cost_tracking="ignore_errors")
    model.config.model_kwargs |= {"tool_choice": BASH, "extra_body": TINY | NO_THINKING}
    agent = DefaultAgent(model, environment, system_template="You fix bugs.", instance_template="{{task}}")
    agent.config.step_limit = 4
    result = agent.run("List the files of this folder.")
    print(result["exit_status"], result["submission"])
    assert result["exit_status"] == "Submitted"
    assert len(environment.commands) == 2
    assert [message["role"] for message in agent.messages][:4] == ["system", "user", "assistant", "tool"]
    asked = agent.messages[2]
    assert asked["tool_calls"][0]["id"] == agent.messages[3]["tool_call_id"]
    assert asked["extra"]["response"]["usage"]["completion_tokens"] > 0


def plain() -> None:
    """One query, thinking; the tool is forced, since this client always sends it and refuses an answer without."""
    place = {"api_base": f"{URL}/v1", "api_key": KEY, "max_tokens": 400, "temperature": 0, "tool_choice": BASH}
    model = LitellmModel(model_name=f"hosted_vllm/{MODEL}", model_kwargs=place, cost_tracking="ignore_errors")
    model.config.model_kwargs |= {"extra_body": TINY | {"thinking_token_budget": 8, "min_tokens": 24}}
    answer = model.query([model.format_message(role="user", content="List the files.")])
    assert answer["reasoning_content"]
    assert "command" in answer["extra"]["actions"][0]


def wrong_key() -> None:
    """LiteLLM's error, at once: this client does not retry it."""
    place = {"api_base": f"{URL}/v1", "api_key": WRONG_KEY}
    model = LitellmModel(model_name=f"hosted_vllm/{MODEL}", model_kwargs=place, cost_tracking="ignore_errors")
    try:
        model.query([model.format_message(role="user", content="List the files.")])
    except litellm.AuthenticationError as error:
        assert error.status_code == 401
    else:
        raise AssertionError("a wrong key was taken")


if __name__ == "__main__":
    no_streaming = "mini-swe-agent has no streaming"
    where = "`reasoning_content`"
    prove("mini-swe-agent", reasoning=where, plain=plain, streaming=no_streaming, tools=tools, wrong_key=wrong_key)
