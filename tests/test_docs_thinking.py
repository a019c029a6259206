"""docs/thinking.md is what the code does: its tables are read and tried, row by row."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gateway.core.dialects import DIALECTS, Dialect
from gateway.core.plan import Plan, make_plan
from gateway.core.thinking.grant import GRANT_HEADERS
from gateway.core.thinking.intent import EFFORTS, SPELLINGS, UNLIMITED, Intent
from tests.thinking.test_decision import CASES

PAGE = (Path(__file__).parent.parent / "docs" / "thinking.md").read_text()
BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
AS_IT_CAME = "as it came"


def table(heading: str) -> list[list[str]]:
    """The rows of the table whose first column is called `heading`."""
    lines = PAGE.splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split(" | ")])
    return rows


def plan(dialect: Dialect, body: dict[str, Any]) -> Plan:
    return make_plan(dialect.read(json.dumps(body).encode()), dialect, "m", None, None)


def merged(body: dict[str, Any], added: dict[str, Any]) -> dict[str, Any]:
    return {
        **body,
        **{name: {**body.get(name, {}), **new} if isinstance(new, dict) else new for name, new in added.items()},
    }


def words(intent: Intent) -> str:
    """An intent as the page writes it."""
    budget = "unlimited" if intent.budget == UNLIMITED else intent.budget
    parts = [
        {True: "on", False: "off", None: ""}[intent.on],
        "" if budget is None else f"budget {budget}",
        f"effort {intent.effort}" if intent.effort else "",
        f"at most {intent.most}" if intent.most is not None else "",
        "hidden" if intent.hide else "",
    ]
    return ", ".join(part for part in parts if part)


SPELLED = table("a client sends")


@pytest.mark.parametrize("row", SPELLED, ids=[row[0] for row in SPELLED])
def test_a_spelling(row: list[str]) -> None:
    body, _, wish, told = row
    asked = json.loads(body)
    made = plan(BY_NAME["chat"], asked)
    assert words(made.ask.intent) == wish
    if told == AS_IT_CAME:
        assert made.body == made.ask.raw
    elif told.startswith("nothing"):
        assert made.body == made.ask.raw and made.hide
    else:
        assert json.loads(made.body) == merged(asked, json.loads(told))
    for dialect in DIALECTS:  # every spelling, in every dialect
        if dialect.output_fields:
            assert words(plan(dialect, {**asked, "store": False}).ask.intent) == wish


def test_every_spelling_is_on_the_page() -> None:
    shown = set()
    for body, *_ in SPELLED:
        for top, value in json.loads(body).items():
            shown |= {f"{top}.{member}" for member in value} if isinstance(value, dict) else {top}
    assert shown == {spelling.path for spelling in SPELLINGS}


WISHES: dict[str, dict[str, Any]] = {
    "off": {"enable_thinking": False},
    "on": {"enable_thinking": True},
    "budget 2048": {"reasoning_budget": 2048},
    "budget 100": {"reasoning_budget": 100},
}
OTHERS = table("granted")


@pytest.mark.parametrize("row", OTHERS, ids=[row[0] for row in OTHERS])
def test_the_same_wish_in_another_dialect(row: list[str]) -> None:
    for name, told in zip(("completions", "responses", "messages"), row[1:], strict=True):
        wish = WISHES.get(row[0]) or ({"reasoning_effort": "low"} if name != "chat" else {})
        asked = {**wish, "store": False, "max_tokens": 4000}
        made = plan(BY_NAME[name], asked)
        if told == AS_IT_CAME:
            assert json.loads(made.body) == asked
        elif told == "served over chat":
            assert not made.carried
        else:
            assert made.carried and json.loads(made.body) == merged(asked, json.loads(told))


def test_every_source_is_explained() -> None:
    known = {source for row in table("source") for source in row[0].replace("`", "").split(", ")}
    for _, _, _, _, headers in CASES.values():
        for value in headers.values():
            source = value.split("source=")[1].split(";")[0]
            assert source in known or re.sub(r"^tenant-", "...-", source) in known, source
    assert {row[0] for row in table("header")} == set(GRANT_HEADERS)
    assert {f"x-fleetgate-{name}" for *_, headers in CASES.values() for name in headers} < {
        row[0] for row in table("header")
    }


def test_every_effort_is_named() -> None:
    assert ", ".join(f"`{word}`" for word in EFFORTS) in PAGE


@pytest.mark.parametrize("row", table("budget"), ids=lambda row: str(row[0]))
def test_what_a_budget_costs(row: list[str]) -> None:
    budget, tokens, *dollars = row
    assert int(tokens) == 500 + (0 if budget == "off" else int(budget))
    for rate, told in zip((374, 700), dollars, strict=True):
        assert float(told) == pytest.approx(1000 * int(tokens) * 39 / (rate * 3600), abs=0.006)


def test_the_example_of_a_day() -> None:
    saved = 50_000 * (8000 - 1024)
    assert saved * 39 / (374 * 3600) == pytest.approx(10_000, rel=0.05)
    assert round(saved / (374 * 86_400)) == 11
