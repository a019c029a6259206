"""The dialogue of `fleetgate init`, from the first question to what to type next."""

import json
import os
import shlex
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import typer

from gateway.access.new_keys import make_key
from gateway.cli.init.example import Example, example_text
from gateway.cli.init.finding import NodeFinder, tell_redis
from gateway.cli.init.questions import Questions, limit_reader, read_budget, read_redis, read_tenant, say
from gateway.cli.init.text import InitAnswers, config_text
from gateway.cli.loading import load
from gateway.cli.options import FAILED
from gateway.cli.terminal import tell
from gateway.config.listen import Admin, Listen

INTERRUPTED = 130
ALL_INTERFACES = "0.0.0.0"
FIRST_TENANT = "main"


@dataclass(frozen=True, slots=True)
class GivenAnswers:
    """What was given as options, as it was written; None: not given. `limits`: by their settings' names."""

    nodes: list[str]
    node_key: str | None
    is_open: bool | None
    port: int
    admin_port: int
    tenant: str | None
    no_tenant: bool
    limits: dict[str, str | None]
    max_budget: str | None
    redis: str | None


def run_init(given: GivenAnswers, out: Path, asks: bool) -> None:
    """Ask what was not given (if there is somebody to ask), write the file, and tell the key and what to do next."""
    try:
        answers, key = _answers(given, Questions(asks))
    except (KeyboardInterrupt, EOFError):
        say("\nNothing was written.")
        raise typer.Exit(INTERRUPTED) from None
    _write(out, config_text(answers, Example(example_text()), out.name, datetime.now(UTC).date()))
    tell_next(out, answers, key)


def _answers(given: GivenAnswers, questions: Questions) -> tuple[InitAnswers, str]:
    """All answers, and the key of the tenant; empty without a tenant."""
    finder = NodeFinder(questions, given.node_key)
    nodes = finder.find(given.nodes)
    is_open = questions.choice(given.is_open, "May other machines connect (listen on all interfaces)?", False)
    name = None if given.no_tenant else _tenant(questions, given.tenant, is_open)
    limits = _limits(questions, given.limits) if name is not None else {}
    thinking = "Largest thinking budget, in tokens (empty: no limit)"
    budget = questions.value("--max-thinking", given.max_budget, thinking, "", read_budget)
    sharing = "URL of a Redis, for several gateways and keys at run time (empty: none)"
    url = questions.value("--redis", given.redis, sharing, "", read_redis)
    key, digest = make_key() if name is not None else ("", "")
    answers = InitAnswers(
        nodes=nodes,
        node_key=finder.key_variable,
        host=ALL_INTERFACES if is_open else Listen().host,
        port=given.port,
        admin_port=given.admin_port,
        tenant=name,
        digest=digest,
        limits=limits,
        max_budget=budget,
        redis=url if url is not None and tell_redis(url, questions) else None,
    )
    return answers, key


def _tenant(questions: Questions, given: str | None, is_open: bool) -> str | None:
    def read(text: str) -> str | None:
        name = read_tenant(text)
        if name is None and is_open:
            raise ValueError("clients of other machines need keys: name a tenant")
        return name

    none = "" if is_open else "; - for none: then nobody needs a key"
    return questions.value("--tenant", given, f"First tenant, who gets a key{none}", FIRST_TENANT, read)


def _limits(questions: Questions, given: dict[str, str | None]) -> dict[str, int]:
    found = {}
    for name, text in given.items():
        question = f"Its limit of {name.replace('_', ' ')} (empty: none)"
        number = questions.value(f"--{name.replace('_', '-')}", text, question, "", limit_reader(name))
        if number is not None:
            found[name] = number
    return found


def _write(out: Path, text: str) -> None:
    """Checked before it is written, as `fleetgate check` does; readable by its owner alone, and in nobody's place."""
    with tempfile.TemporaryDirectory(prefix="fleetgate-init-") as folder:
        tried = Path(folder) / out.name
        tried.write_text(text)
        load(tried, {})
    try:
        with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
    except OSError as error:
        say(f"fleetgate: {out} cannot be written: {error.strerror}")
        raise typer.Exit(FAILED) from None


def tell_next(out: Path, answers: InitAnswers, key: str) -> None:
    """The key, and what to type next."""
    say(f"\nWrote {out}; only its owner may read it.")
    if key:
        say(f"The key of {answers.tenant}, shown this once:")
        tell(key)
    model = next((name for node in answers.nodes for name in node.models), "MODEL")
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    body = shlex.quote(json.dumps({"model": model, "messages": messages}))
    keyed = "\n  KEY=fg-...                                # the key above" if key else ""
    header = ' -H "Authorization: Bearer $KEY"' if key else ""
    admin = "" if answers.admin_port == Admin().port else f" --admin http://127.0.0.1:{answers.admin_port}"
    at = "" if answers.port == Listen().port else f" -c {out}"
    say(
        f"""
Next:

  fleetgate check -c {out} --probe
  fleetgate serve -c {out}

and in another terminal:
{keyed}
  fleetgate status{admin}
  curl http://127.0.0.1:{answers.port}/v1/chat/completions -H 'Content-Type: application/json'{header} \\
    -d {body}
  fleetgate connect claude{at}{' --key "$KEY"' if key else ""}    # or codex, opencode, aider, ...: sets up a client"""
    )
