"""What a client's script proves, and how it says so. Imports nothing but the standard library: it runs in their places.

A script hands `prove` one function per part; what a function raises is the part's failure. Where a client cannot do a
part, the reason stands instead, as a string. The results go to a file, since libraries print as they like.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Literal

URL = os.environ.get("FLEETGATE_URL", "http://127.0.0.1:8080")
KEY = os.environ.get("FLEETGATE_KEY", "")
MODEL = os.environ.get("FLEETGATE_MODEL", "nemotron-3-ultra")

WRONG_KEY = "fg-this-key-is-nobodys"
QUESTION = "What is the capital of France? Tell me about it."
WEATHER_QUESTION = "What is the weather in Paris?"
# For calls with tools: no thinking, and some words about the result, which the tiny model has not always.
CALM = {"chat_template_kwargs": {"enable_thinking": False}, "min_tokens": 8}
# Strict, and the values are enumerated: so a model of any size gives arguments that fit and end.
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {"name": "get_weather", "description": "Get the weather of a city.", "parameters": CITY, "strict": True}

City = Literal["Paris", "Rome"]
Part = Callable[[], None] | str


def get_weather(city: str) -> str:
    """The tool behind WEATHER."""
    return {"Paris": "Sunny, 21 degrees.", "Rome": "Rain, 17 degrees."}[city]


def prove(package: str, *, reasoning: str, **parts: Part) -> None:
    """Run the parts (plain, streaming, tools, wrong_key), report each, exit 1 where one fails.

    `reasoning` says where the client gives the thoughts, or that it does not; the parts assert it.
    """
    _report(part="client", package=package, version=version(package), reasoning=reasoning)
    failed = [name for name, part in parts.items() if not _proven(name, part)]
    sys.exit(1 if failed else 0)


def _proven(name: str, part: Part) -> bool:
    if isinstance(part, str):
        _report(part=name, result="absent", why=part)
        return True
    try:
        part()
    except Exception as error:  # noqa: BLE001 - whatever a client raises is a result, and the next part is still tried
        traceback.print_exc()
        line = traceback.extract_tb(error.__traceback__)[-1].line
        _report(part=name, result="failed", why=f"{type(error).__name__}: {str(error) or line}"[:300])
        return False
    _report(part=name, result="ok", why="")
    return True


def _report(**facts: str) -> None:
    line = json.dumps(facts)
    where = os.environ.get("FLEETGATE_RESULTS")
    if where is None:
        print(line, flush=True)
        return
    with Path(where).open("a") as file:
        file.write(line + "\n")
