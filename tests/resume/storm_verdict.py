"""Holds a client's answer against the unbroken one, and adds such verdicts up."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from tests.resume.storm_answers import AnswerBroken, read_answer, read_part
from tests.resume.storm_requests import Said, StormRequest

_TOKENS = re.compile(r"\s?\w+|\s|[^\w\s]")
"""Words and marks: about a token each."""

_RESUMED = b"\n: resumed on another node"
_COUNTS = ("prompt_tokens", "output_tokens", "reasoning_tokens")


@dataclass(frozen=True, slots=True)
class Verdict:
    """`refused`: a plain request that two nodes failed on, told so by an error. `broken`: why there is no proper end.
    `lost`, `doubled`: tokens that are missing, and that are too many. `usage`, `form`: what is wrong with it.
    `resumes`: as its comments tell them. `where`: the first difference of the texts."""

    refused: bool = False
    broken: str = ""
    lost: int = 0
    doubled: int = 0
    usage: str = ""
    form: str = ""
    resumes: int = 0
    where: str = ""

    @property
    def faults(self) -> str:
        """Empty where the answer is the unbroken one."""
        text = f"{self.lost} tokens lost, {self.doubled} doubled" if self.lost or self.doubled else ""
        return "; ".join(filter(None, (self.broken, text, self.usage, self.form)))


def judge(asked: StormRequest, status: int, body: bytes, ended: bool, expected: Said) -> Verdict:
    """One answer beside the unbroken one. `ended`: the HTTP body came to its end."""
    resumes = body.count(_RESUMED) + body.startswith(_RESUMED[1:])
    try:
        text = read_answer(asked, status, body, ended)
    except AnswerBroken as error:
        if not asked.body.get("stream") and ended and 500 <= status < 600 and "error" in json.loads(body):
            return Verdict(refused=True)
        lost, doubled = compare(expected, read_part(asked, body))
        return Verdict(False, str(error), lost, doubled, resumes=resumes)
    said = text.said()
    lost, doubled = compare(expected, said)
    form = [] if said.finish == expected.finish else [f"finish {said.finish} for {expected.finish}"]
    form += text.form()
    wrong, where = _usage_fault(expected, said), _where(expected, said) if lost or doubled else ""
    return Verdict(False, "", lost, doubled, wrong, "; ".join(form), resumes, where)


def judge_any(asked: StormRequest, status: int, body: bytes, ended: bool, expected: Sequence[Said]) -> Verdict:
    """The same beside several unbroken ones, of which it may be any."""
    verdicts = [judge(asked, status, body, ended, said) for said in expected]
    return min(verdicts, key=lambda verdict: (bool(verdict.faults), verdict.lost + verdict.doubled))


def compare(expected: Said, said: Said) -> tuple[int, int]:
    """Tokens that are missing, and that are too many."""
    lost = doubled = 0
    for whole, got in _texts(expected, said):
        if whole != got:
            matcher = SequenceMatcher(None, _TOKENS.findall(whole), _TOKENS.findall(got), autojunk=False)
            for kind, i, j, k, m in matcher.get_opcodes():
                if kind != "equal":
                    lost, doubled = lost + j - i, doubled + m - k
    return lost, doubled


def _texts(expected: Said, said: Said) -> Sequence[tuple[str, str]]:
    """The texts to compare. Half a character at the end of thinking, where a budget ended it, is no text."""
    reasoning = expected.reasoning.rstrip("\ufffd"), said.reasoning.rstrip("\ufffd")
    if reasoning[0].startswith(reasoning[1]) and len(reasoning[0]) - len(reasoning[1]) <= expected.held:
        reasoning = reasoning[1], reasoning[1]
    return (reasoning, (expected.content, said.content))


def _where(expected: Said, said: Said) -> str:
    for whole, got in _texts(expected, said):
        if whole != got:
            at = next(
                (i for i, (a, b) in enumerate(zip(whole, got, strict=False)) if a != b), min(len(whole), len(got))
            )
            return f"{got[max(0, at - 20) : at + 20]!r} for {whole[max(0, at - 20) : at + 20]!r}"
    return ""


def _usage_fault(expected: Said, said: Said) -> str:
    told = [(name, getattr(said, name), getattr(expected, name)) for name in _COUNTS]
    missing = [name for name, got, _ in told[:2] if got is None]
    wrong = [f"{name} {got} for {whole}" for name, got, whole in told if got is not None and got != whole]
    return "; ".join([*(f"no {name}" for name in missing), *wrong])


@dataclass(frozen=True, slots=True)
class StormResult:
    """`harmed`: how often a node was. `resumed`: resumes, as the gateway counts them. `pause`: seconds that
    one lasted, on average."""

    title: str
    harmed: int
    resumed: int
    pause: float
    verdicts: Sequence[tuple[StormRequest, Verdict]]

    HEAD = "storm | harmed | answers | resumed | pause, s | broken | lost | doubled | usage | form | plain refused"

    def row(self) -> str:
        """The table's line."""
        found = [verdict for _, verdict in self.verdicts]
        numbers = [
            *(self.harmed, len(found), self.resumed, f"{self.pause:.2f}", sum(bool(v.broken) for v in found)),
            *(sum(v.lost for v in found), sum(v.doubled for v in found)),
            *(sum(bool(v.usage) for v in found), sum(bool(v.form) for v in found), sum(v.refused for v in found)),
        ]
        return f"| {self.title} | {' | '.join(map(str, numbers))} |"

    def faults(self) -> Counter[str]:
        """What was wrong, by kind of request, with its numbers left out; the most frequent first."""
        return Counter(
            f"{asked.kind}: {re.sub(r'[0-9a-f]{8,}|[0-9]+', 'N', verdict.faults)[:240]} {verdict.where}"
            for asked, verdict in self.verdicts
            if verdict.faults
        )
