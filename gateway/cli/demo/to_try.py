"""What the demo tells to try: lines that can be copied, each of which shows one thing."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.cli.demo.first_answer import QUESTION, SHORT
from gateway.cli.demo.nodes import MODEL, DemoNode, NodeKind
from gateway.cli.demo.processes import typed

FEW = 2
"""Requests a minute of the tenant that shows a 429."""


@dataclass(frozen=True, slots=True)
class Demo:
    """A running demo: the gateway's URLs, the keys of its two tenants, its nodes."""

    kind: NodeKind
    url: str
    admin_url: str
    key: str
    few_key: str
    nodes: Sequence[DemoNode]


def things_to_try(demo: Demo, last_node: str) -> str:
    """The whole text. `last_node`: the name of the one that gave the first answer."""
    parts = [_facts(demo), _lines(demo), _failover(demo, last_node), _clients(demo)]
    return "\n".join([*parts, "\nCtrl-C stops everything. Requests, as they go by:\n"])


def _facts(demo: Demo) -> str:
    nodes = ", ".join(f"{node.name} (process {node.process.pid})" for node in demo.nodes)
    return f"""
fleetgate is ready.

  URL     {demo.url}/v1
  key     {demo.key}
  model   {MODEL}
  nodes   {nodes}
  console {demo.admin_url}/console  (in a browser: sign in with any name; this demo has no admin token)
  admin   {demo.admin_url}/docs  (its API; metrics: {demo.admin_url}/metrics)
"""


def _lines(demo: Demo) -> str:
    body = {"model": MODEL, "stream": True, **SHORT, "messages": [{"role": "user", "content": QUESTION}]}
    return f"""To try, in another terminal. First these three lines, for the ones below:

URL={demo.url} KEY={demo.key}
FEW={demo.few_key}
ASK='{json.dumps(body)}'

# Ask. Thinking is held to {SHORT["thinking_token_budget"]} tokens.
{_curl("-N", "KEY")}

# The nodes: state, load, cache hits, time to the first token.
{typed("fleetgate")} status --once --admin {demo.admin_url}

# A limit: {FEW} requests a minute with this key. The third is a 429, which says when to come back.
for i in 1 2 3; do {_curl("-s -o /dev/null -D -", "FEW")} \\
  | grep -iE '^HTTP|^retry-after|remaining-requests'; done"""


def _failover(demo: Demo, last_node: str) -> str:
    if len(demo.nodes) < 2:
        return f"""
# A failover needs a second node: `{typed("fleetgate")} demo --nodes 2` (make demo NODES=2) runs two vLLMs, in 3 GB of
# memory more. Without a model there are two at once: --node fake (make demo NODE=fake)."""
    killed = next((node for node in demo.nodes if node.name == last_node), demo.nodes[0])
    return f"""
# A failover: the node that had this question before is killed in mid-answer, and another goes on at the next token.
# The line that is shown here says where. The node is started again after a while, as another process.
(sleep 1; kill -9 {killed.process.pid}) & {_curl("-N", "KEY")}"""


def _clients(demo: Demo) -> str:
    message = json.dumps({"role": "user", "content": QUESTION})
    budget, most = SHORT["thinking_token_budget"], SHORT["max_tokens"]
    return f"""
# A coding agent (claude, codex, opencode, aider, ...): prints its settings; --write writes them.
{typed("fleetgate")} connect claude --url $URL --key $KEY

# The OpenAI SDK, in Python (pip install openai):
from openai import OpenAI
client = OpenAI(base_url="{demo.url}/v1", api_key="{demo.key}")
ask = {{"model": "{MODEL}", "max_tokens": {most}, "messages": [{message}]}}
for chunk in client.chat.completions.create(**ask, stream=True, extra_body={{"thinking_token_budget": {budget}}}):
    delta = chunk.choices[0].delta
    print(getattr(delta, "reasoning", None) or delta.content or "", end="", flush=True)"""


def _curl(options: str, key: str) -> str:
    headers = f"-H \"Authorization: Bearer ${key}\" -H 'Content-Type: application/json'"
    return f'curl {options} $URL/v1/chat/completions {headers} -d "$ASK"'
