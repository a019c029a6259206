"""Prompts that are counted: what is rendered, what is counted, and what becomes of those that cannot be."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from gateway.config.models import ModelConfig
from gateway.config.tree import Config
from gateway.core.dialects import DIALECTS
from gateway.core.thinking.decision import ThinkingRules
from gateway.core.thinking.policy import Policy, PolicyBook, PolicyLayer
from gateway.counting.counter import INLINE_BYTES
from gateway.counting.files import UnusableTokenizer, load_counter
from gateway.wiring.read_at_start import needs_restart
from tests.support.gateways import running_gateway
from tests.support.nodes import MODEL
from workers.fake import FakeSettings, serve_fake

TEMPLATE = """\
{%- for message in messages %}
{{ bos_token }}{{ message.role }}: {{ message.content }}
{%- for call in message.tool_calls or [] %} {{ call.function.name }}({{ call.function.arguments | tojson }}){% endfor %}
{% endfor %}
{%- if tools %}{{ tools | tojson }}{% endif %}
{%- set thinking = enable_thinking is not defined or enable_thinking %}
{%- if add_generation_prompt %}<s>assistant:{{ '<think>' if thinking else '' }}
{%- endif %}"""
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
TOLD_TOOL = (
    '[{"type": "function", "function": {"name": "look", "description": null, "parameters": {"type": "object"}}}]'
)


def build(folder: Path, template: str | None = TEMPLATE) -> Tokenizer:
    """A byte-level tokenizer that puts `<s>` before a text, with its template, as a model brings them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEMPLATE, "the quick brown fox jumps over the lazy dog " * 3], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": {"content": "<s>"}}))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return tokenizer


async def count(folder: Path, dialect: str, body: dict[str, Any], terms: Policy | None = None) -> int | None:
    kind = next(each for each in DIALECTS if each.name == dialect)
    return await load_counter(MODEL, folder).count(
        kind.read(json.dumps({"model": MODEL, **body}).encode()), kind, terms
    )


def user(text: Any = "the fox") -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"at":"it"}'}}
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Look."},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
]
CHATS: dict[str, tuple[str, dict[str, Any], str]] = {
    "plain": ("chat", {"messages": user()}, "<s>user: the fox<s>assistant:<think>"),
    "in parts": (
        "chat",
        {"messages": user([{"type": "text", "text": "the"}, {"type": "text", "text": "fox"}])},
        "<s>user: the\nfox<s>assistant:<think>",
    ),
    "thinking off, in another spelling": (
        "chat",
        {"messages": user(), "thinking": {"type": "disabled"}},
        "<s>user: the fox<s>assistant:",
    ),
    "tools": ("chat", {"messages": user(), "tools": [TOOL]}, f"<s>user: the fox{TOLD_TOOL}<s>assistant:<think>"),
    "a talk": (
        "chat",
        {"messages": TALK},
        '<s>system: Be brief.<s>user: Look.<s>assistant:  look({"at": "it"})<s>tool: a\nb<s>assistant:<think>',
    ),
    "a developer, for a template that knows none": (
        "chat",
        {"messages": [*user(), {"role": "developer", "content": "Be brief."}]},
        "<s>system: Be brief.<s>user: the fox<s>assistant:<think>",
    ),
    "messages": (
        "messages",
        {"messages": user(), "system": "Be brief.", "max_tokens": 1},
        "<s>system: Be brief.<s>user: the fox<s>assistant:<think>",
    ),
    "responses": (
        "responses",
        {"input": "the fox", "instructions": "Be brief."},
        "<s>system: Be brief.<s>user: the fox<s>assistant:<think>",
    ),
}


TOOLS = [{"type": "function", "name": "look"}, {"type": "function", "name": "get"}]
MORE = {"type": "additional_tools", "role": "developer", "tools": TOOLS}
ALLOWED = {"type": "allowed_tools", "mode": "auto", "tools": TOOLS}


async def test_a_choice_of_all_tools_leaves_the_prompt_alone(tmp_path: Path) -> None:
    build(tmp_path)
    plain = await count(tmp_path, "responses", {"input": "on", "tools": TOOLS})
    assert await count(tmp_path, "responses", {"input": "on", "tools": TOOLS, "tool_choice": ALLOWED}) == plain
    assert plain


@pytest.mark.parametrize("case", CHATS)
async def test_a_chat_is_as_long_as_its_rendered_template(case: str, tmp_path: Path) -> None:
    tokenizer = build(tmp_path)
    dialect, body, prompt = CHATS[case]
    assert await count(tmp_path, dialect, body) == len(tokenizer.encode(prompt, add_special_tokens=False))


async def test_what_the_rules_make_of_thinking_is_counted(tmp_path: Path) -> None:
    tokenizer = build(tmp_path)
    terms = PolicyBook(PolicyLayer(thinking=ThinkingRules(mode="forbidden"))).of(None, MODEL)
    expected = len(tokenizer.encode("<s>user: the fox<s>assistant:", add_special_tokens=False))
    assert await count(tmp_path, "chat", {"messages": user()}, terms) == expected
    assert await count(tmp_path, "messages", {"messages": user(), "max_tokens": 9}, terms) == expected


async def test_a_template_that_goes_through_parts_gets_parts(tmp_path: Path) -> None:
    loops = "{% for message in messages %}{% for part in message['content'] %}[{{ part.text }}]{% endfor %}{% endfor %}"
    tokenizer = build(tmp_path, loops)
    body = {"messages": user([{"type": "text", "text": "the"}, {"type": "text", "text": "fox"}])}
    assert await count(tmp_path, "chat", body) == len(tokenizer.encode("[the][fox]", add_special_tokens=False))
    assert await count(tmp_path, "chat", {"messages": user("the")}) == len(
        tokenizer.encode("[the]", add_special_tokens=False)
    )


async def test_completions_are_counted_as_they_are(tmp_path: Path) -> None:
    whole = len(build(tmp_path).encode("the quick fox"))
    assert await count(tmp_path, "completions", {"prompt": "the quick fox"}) == whole
    assert await count(tmp_path, "completions", {"prompt": ["the quick fox"] * 2}) == 2 * whole
    bare = {"prompt": "the quick fox", "add_special_tokens": False}
    assert await count(tmp_path, "completions", bare) == whole - 1
    assert await count(tmp_path, "completions", {"prompt": [1, 2, 3]}) == 3
    assert await count(tmp_path, "completions", {"prompt": [[1, 2, 3], [4]]}) == 4


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        ("chat", {"messages": user([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}])}),
        ("chat", {"messages": user(), "chat_template": "x"}),
        ("chat", {"messages": user(), "chat_template_kwargs": {"messages": []}}),
        ("chat", {"messages": "no list"}),
        ("chat", {}),
        ("completions", {"prompt": "the fox", "truncate_prompt_tokens": 1}),
        ("responses", {"input": "on", "previous_response_id": "resp_x"}),
        ("responses", {"input": [MORE, *user()]}),
        ("responses", {"input": "on", "tools": TOOLS, "tool_choice": {**ALLOWED, "tools": TOOLS[:1]}}),
    ],
)
async def test_what_cannot_be_counted_is_estimated(dialect: str, body: dict[str, Any], tmp_path: Path) -> None:
    build(tmp_path)
    assert await count(tmp_path, dialect, body) == 0


@pytest.mark.parametrize(
    "template",
    ["{{ raise_exception('no') }}", "{{ messages.__class__.__mro__ }}{{ 1 / 0 }}", "{{ messages.append(1) }}", None],
)
async def test_a_template_that_fails_is_no_reason_to_refuse(template: str | None, tmp_path: Path) -> None:
    build(tmp_path, template)
    assert await count(tmp_path, "chat", {"messages": user()}) == 0
    assert await count(tmp_path, "completions", {"prompt": [1, 2]}) == 2


async def test_a_long_prompt_leaves_the_loop_alone(tmp_path: Path) -> None:
    tokenizer = build(tmp_path)
    text = "the quick brown fox " * 10_000
    assert len(text) > INLINE_BYTES
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(turn())
    found = await count(tmp_path, "completions", {"prompt": text})
    beside.cancel()
    assert found == len(tokenizer.encode(text)) and turns > 10


async def test_limits_and_windows_go_by_the_count(tmp_path: Path) -> None:
    tokenizer = build(tmp_path)
    length = len(tokenizer.encode("<s>user: the fox<s>assistant:<think>", add_special_tokens=False))
    settings: dict[str, Any] = {
        "limits": {"default": {"tokens_per_minute": 100_000, "burst_seconds": 1}},
        "models": [{"name": MODEL, "tokenizer": str(tmp_path), "output": {"default_tokens": 9999}}],
    }
    limit = 100_000 // 60
    async with serve_fake(FakeSettings(max_model_len=1000)) as node, running_gateway(node.url, **settings) as gateway:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as client:
            body = {"model": MODEL, "messages": user(), "max_tokens": 5}
            answer = await client.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200
            assert int(answer.headers["x-ratelimit-remaining-tokens"]) == limit - length - 5
            broad = await client.post("/v1/chat/completions", json={**body, "max_tokens": 2000})
            told = broad.headers["x-fleetgate-max-tokens"]
            assert told == f"{1000 - length - 16}; source=window; asked=2000"
            image = {**body, "messages": user([{"type": "image_url", "image_url": {"url": "data:,"}}])}
            await client.post("/v1/chat/completions", json=image)
            async with httpx.AsyncClient(base_url=gateway.admin_url) as admin:
                page = (await admin.get("/metrics")).text
    counted = [line for line in page.splitlines() if line.startswith("fleetgate_prompts_counted_total")]
    assert f'fleetgate_prompts_counted_total{{how="estimated",model="{MODEL}"}} 1.0' in counted
    assert len(counted) == 2, "the fake has a tokenizer of its own, so the others are wrong"


def test_a_reload_says_that_another_tokenizer_needs_a_restart(tmp_path: Path) -> None:
    build(tmp_path)
    before = Config(models=(ModelConfig(name=MODEL),))
    after = Config(models=(ModelConfig(name=MODEL, tokenizer=tmp_path),))
    assert needs_restart(before, after) == needs_restart(after, before) == ["models.tokenizer"]
    assert needs_restart(after, after) == []


def check(folder: Path, tokenizer: Path, before: str = "pass") -> subprocess.CompletedProcess[str]:
    """`fleetgate check` on a file that names `tokenizer`."""
    file = folder / "fleetgate.yaml"
    file.write_text(f"models:\n  - name: m\n    tokenizer: {tokenizer}\n")
    code = (
        f"import sys; {before}; from gateway.cli.main import main; "
        f"sys.argv = ['fleetgate', 'check', {str(file)!r}]; main()"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_what_is_wrong_with_it_is_told_before_the_start(tmp_path: Path) -> None:
    build(tmp_path)
    assert check(tmp_path, tmp_path).returncode == 0

    gone = check(tmp_path, tmp_path / "nowhere")
    assert gone.returncode == 2 and "fleetgate.yaml:3: models[0].tokenizer: " in gone.stderr
    assert "nowhere cannot be read (No such file or directory): give the folder" in gone.stderr

    bare = check(tmp_path, tmp_path, before="sys.modules['tokenizers'] = None")
    assert bare.returncode == 2 and "models[0].tokenizer: " in bare.stderr
    assert "needs tokenizers: pip install 'fleetgate[tokenizer]'" in bare.stderr

    (tmp_path / "chat_template.jinja").write_text("{% for %}")
    broken = check(tmp_path, tmp_path)
    assert (
        broken.returncode == 2 and f"models[0].tokenizer: the chat template in {tmp_path} is invalid" in broken.stderr
    )

    (tmp_path / "tokenizer.json").write_text("{}")
    broken = check(tmp_path, tmp_path / "tokenizer.json")
    assert (
        broken.returncode == 2 and f"models[0].tokenizer: {tmp_path}/tokenizer.json is not a tokenizer" in broken.stderr
    )
    with pytest.raises(UnusableTokenizer):
        load_counter(MODEL, tmp_path)
