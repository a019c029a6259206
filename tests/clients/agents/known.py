"""The agents, as they are started without a person."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.clients.agents.agent import DONE, NOTES, Agent, Run, events
from tests.clients.environments import EnvironmentMissing, node_modules, python_environment
from tests.clients.say import say

BRIEF = "You are brief."


def _native(pattern: str) -> Path:
    """The binary of a platform package; of several the one that asks for the least (musl, old processors: longer)."""
    found = sorted(node_modules("agents", say).glob(pattern), key=lambda path: (len(str(path)), str(path)))
    if not found:
        raise EnvironmentMissing(f"no package holds {pattern} for this platform")
    return found[0]


def _claude(binary: Path, run: Run) -> Sequence[str]:
    words = [str(binary), "--print", "--output-format", "stream-json", "--verbose", "--allowedTools", "Read,Write,Bash"]
    return [*words, *(["--continue"] if run.again else []), *run.extra]


def _claude_turns(work: Path) -> list[Any]:
    return [
        ["I read the notes first.", {"Read": {"file_path": str(work / "notes.txt")}}],
        {"Write": {"file_path": str(work / "copy.txt"), "content": NOTES}},
        {"Bash": {"command": "cmp notes.txt copy.txt", "description": "Compare both files"}},
        DONE,
    ]


def _claude_thinks(output: str) -> bool:
    messages = [event["message"]["content"] for event in events(output) if event.get("type") == "assistant"]
    return any(block.get("type") == "thinking" and block["thinking"] for blocks in messages for block in blocks)


def _claude_brief(work: Path) -> Sequence[str]:
    return ["--system-prompt", BRIEF, "--tools", ""]


def _codex(binary: Path, run: Run) -> Sequence[str]:
    rights = ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
    return [str(binary), "exec", *rights, *(["resume", "--last"] if run.again else []), *run.extra, "-"]


def _codex_turns(work: Path) -> list[Any]:
    return [
        ["I read the notes first.", {"exec_command": {"cmd": "cat notes.txt"}}],
        {"exec_command": {"cmd": "cp notes.txt copy.txt"}},
        {"exec_command": {"cmd": "cmp notes.txt copy.txt"}},
        DONE,
    ]


def _codex_thinks(output: str) -> bool:
    """Its thoughts stand on lines without a heading, behind the last warning and before what it says or does."""
    told = output.rpartition("\nwarning: ")[2].partition("\n")[2]
    return bool(re.split(r"^(?:codex|exec|tokens used)$", told, maxsplit=1, flags=re.MULTILINE)[0].strip())


def _codex_brief(work: Path) -> Sequence[str]:
    instructions = work / "instructions.md"
    instructions.write_text(BRIEF)
    settings = (f'model_instructions_file="{instructions}"', "features.multi_agent=false", "features.goals=false")
    return [word for setting in settings for word in ("-c", setting)]


def _opencode(binary: Path, run: Run) -> Sequence[str]:
    words = [str(binary), "run", "--format", "json", "--thinking", *run.extra]
    return [*words, "--continue"] if run.again else words


def _opencode_turns(work: Path) -> list[Any]:
    return [
        ["I read the notes first.", {"read": {"filePath": str(work / "notes.txt")}}],
        {"write": {"filePath": str(work / "copy.txt"), "content": NOTES}},
        {"bash": {"command": "cmp notes.txt copy.txt", "description": "Compare both files"}},
        DONE,
    ]


def _opencode_thinks(output: str) -> bool:
    return any(event.get("type") == "reasoning" and event["part"]["text"] for event in events(output))


def _opencode_brief(work: Path) -> Sequence[str]:
    agent = work / ".opencode" / "agent" / "brief.md"
    agent.parent.mkdir(parents=True)
    agent.write_text(f'---\ndescription: brief\nmode: primary\ntools:\n  "*": false\n---\n{BRIEF}\n')
    return ["--agent", "brief"]


def _aider(binary: Path, run: Run) -> Sequence[str]:
    quiet = ["--no-check-update", "--analytics-disable", "--no-show-release-notes", "--no-gitignore", "--no-git"]
    return [str(binary), "--yes", "--no-pretty", "--no-stream", *quiet, *run.extra, "--message", run.prompt, "copy.txt"]


def _aider_turns(work: Path) -> list[Any]:
    edit = f"I add the notes.\n\ncopy.txt\n```\n<<<<<<< SEARCH\n=======\n{NOTES}>>>>>>> REPLACE\n```\n\n{DONE}"
    return [edit]


OFFLINE_OPENCODE = dict.fromkeys(
    ("OPENCODE_DISABLE_MODELS_FETCH", "OPENCODE_DISABLE_AUTOUPDATE", "OPENCODE_DISABLE_LSP_DOWNLOAD"), "1"
)

AGENTS = (
    Agent(
        name="Claude Code",
        connect="claude",
        package="@anthropic-ai/claude-code",
        dialect="messages",
        thinking="block `thinking`",
        binary=lambda: _native("@anthropic-ai/claude-code-*/claude"),
        command=_claude,
        turns=_claude_turns,
        requests=4,
        shows_thinking=_claude_thinks,
        brief=_claude_brief,
        environment={"DISABLE_AUTOUPDATER": "1", "DISABLE_TELEMETRY": "1", "DISABLE_AUTO_COMPACT": "1"},
    ),
    Agent(
        name="Codex",
        connect="codex",
        package="@openai/codex",
        dialect="responses",
        thinking="raw reasoning (`show_raw_agent_reasoning`)",
        binary=lambda: _native("@openai/codex-*/vendor/*/bin/codex"),
        command=_codex,
        turns=_codex_turns,
        requests=4,
        shows_thinking=_codex_thinks,
        brief=_codex_brief,
    ),
    Agent(
        name="OpenCode",
        connect="opencode",
        package="opencode-ai",
        dialect="chat",
        thinking="part `reasoning` (`--thinking`)",
        binary=lambda: _native("opencode-*/bin/opencode"),
        command=_opencode,
        turns=_opencode_turns,
        requests=5,  # a title too
        shows_thinking=_opencode_thinks,
        brief=_opencode_brief,
        environment=OFFLINE_OPENCODE,
    ),
    Agent(
        name="aider",
        connect="aider",
        package="aider-chat",
        dialect="chat",
        thinking="above the answer, with `--no-stream`; dropped by the client in a stream",
        binary=lambda: python_environment("aider", say).with_name("aider"),
        command=_aider,
        turns=_aider_turns,
        requests=1,
        shows_thinking=lambda output: "THINKING" in output,
        brief=lambda work: (),
        goes_on=False,
        stdin=False,
        to_stream=("--stream",),
        environment={"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    ),
)
