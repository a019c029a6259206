"""Finds the nodes and the Redis for `fleetgate init`, and tells what was found there."""

import asyncio
import os
from collections.abc import Iterable, Sequence

import typer

from gateway.cli.init.questions import NODE_PORT, Questions, read_node_url, say
from gateway.cli.init.text import described
from gateway.cli.options import FAILED, misused
from gateway.config.tree import Config
from gateway.server.live_check import ask_redis
from gateway.server.node_survey import SurveyedNode, survey

USUAL_PORTS = range(NODE_PORT, NODE_PORT + 4)
"""Where a vLLM on this machine is looked for."""


class NodeFinder:
    """Finds nodes, by URL or on this machine. `key_variable`: the variable with their key."""

    def __init__(self, questions: Questions, key_variable: str | None) -> None:
        self._questions = questions
        self.key_variable = key_variable
        self._key = None if key_variable is None else _key_in(key_variable)

    def find(self, given: Sequence[str]) -> list[SurveyedNode]:
        """At least one node, else this ends the command."""
        urls = [self._questions.value("--node", url, "", "", _told_url) for url in given]
        found = self._look_at(urls) if urls else self._use(self._local())
        while self._questions.asks and not given:
            more = "URL of a node" if not found else "URL of another node (empty: none)"
            text = self._questions.value("--node", None, more, "", str)
            if not text and found:
                break
            if text:
                found += self._asked(text, [node.url for node in found])
        if not found:
            looked = f"no vLLM was found on this machine (ports {USUAL_PORTS[0]} to {USUAL_PORTS[-1]})"
            say(f"fleetgate: {looked if not given else 'no node is left'}: give --node http://HOST:8000")
            raise typer.Exit(FAILED)
        return found

    def _local(self) -> list[SurveyedNode]:
        say(f"Looking for vLLM on this machine, ports {USUAL_PORTS[0]} to {USUAL_PORTS[-1]} ...")
        places = [f"http://127.0.0.1:{port}" for port in USUAL_PORTS]
        return [node for node in self._survey(places, False) if node.version]

    def _use(self, found: Sequence[SurveyedNode]) -> list[SurveyedNode]:
        if not found:
            say("  none found")
        wanted = [
            node.url for node in found if self._questions.choice(None, f"Use {node.url} ({described(node)})?", True)
        ]
        return self._look_at(wanted)

    def _asked(self, text: str, known: Sequence[str]) -> list[SurveyedNode]:
        try:
            url = _told_url(text)
        except ValueError as error:
            say(f"Error: {error}")
            return []
        return self._look_at([] if url in known else [url])

    def _look_at(self, urls: Iterable[str]) -> list[SurveyedNode]:
        kept = []
        for node in self._survey(dict.fromkeys(urls), True):
            seen = self._with_key(node)
            say(f"{seen.url}: {described(seen)}")
            if seen.problem is None or self._is_kept(seen):
                kept.append(seen)
        return kept

    def _with_key(self, node: SurveyedNode) -> SurveyedNode:
        """Asked again with its key, where it wants one."""
        while node.needs_key and self._questions.asks:
            say(f"{node.url}: {described(node)}")
            question = "Variable that holds its key (empty: leave it without)"
            name = self._questions.value("--node-key-env", None, question, "", str)
            if not name:
                break
            if os.environ.get(name):
                self.key_variable, self._key = name, os.environ[name]
                node = self._survey([node.url], True)[0]
            else:
                say(f"Error: the environment variable {name} is not set")
        return node

    def _is_kept(self, node: SurveyedNode) -> bool:
        """A node that cannot be used now may be started later; another server never is one."""
        if self._questions.asks:
            return self._questions.choice(None, "Write it to the file all the same?", False)
        if not node.is_vllm:
            say(f"fleetgate: {node.url} is not a node: give the URL of a vLLM")
            raise typer.Exit(FAILED)
        remedy = "give --node-key-env" if node.needs_key else "it is used as soon as it answers"
        say(f"warning: {node.url} is written all the same: {remedy}")
        return True

    def _survey(self, urls: Iterable[str], budgets: bool) -> Sequence[SurveyedNode]:
        return asyncio.run(survey(urls, self._key, budgets))


def tell_redis(url: str, questions: Questions) -> bool:
    """Ask Redis, and tell what it said; whether it is to be used."""
    for finding in asyncio.run(ask_redis(Config.model_validate({"redis": {"url": url}}))):
        say(f"Redis: {finding.words}")
        if not finding.ok and questions.asks:
            return questions.choice(None, "Write it to the file all the same?", False)
    return True


def _told_url(text: str) -> str:
    url = read_node_url(text)
    if "/v1" in text:
        say(f"{text}: taken as {url}; the gateway adds /v1 to every path")
    return url


def _key_in(variable: str) -> str:
    key = os.environ.get(variable)
    if not key:
        raise misused(f"--node-key-env: the environment variable {variable} is not set")
    return key
