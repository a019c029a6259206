"""The pages that are made from the code are what it says now."""

import re
from collections.abc import Callable

import pytest

from gateway.config.document import ConfigError
from gateway.config.source import load_config
from tests.docs.errors_page import messages, places
from tests.docs.references import PAGES
from tests.docs.settings_page import parts
from tests.docs.site_hooks import ROOT
from tests.test_docs_api import CODES

SETTINGS = [each for part in parts() for each in part.settings]


@pytest.mark.parametrize(("name", "page"), PAGES.items(), ids=PAGES.keys())
def test_a_reference_is_current(name: str, page: Callable[[], str]) -> None:
    assert (ROOT / "docs" / name).read_text() == page(), f"docs/{name} is not what the code says: make references"


def test_every_setting_stands_once_and_has_an_anchor() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    assert len({each.path for each in SETTINGS}) == len(SETTINGS) > 150
    anchors = re.findall(r'<a id="([^"]+)">', text)
    assert len(set(anchors)) == len(anchors)
    assert {each.anchor for each in SETTINGS} <= {*anchors, *re.findall(r"^## (\w+)", text, re.MULTILINE)}


def test_a_variable_of_the_page_sets_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that sets nothing is an error."""
    given = {each.variable: each.default.strip("`") for each in SETTINGS if each.variable and "number" in each.kind}
    given = {variable: default for variable, default in given.items() if default not in ("unset", "required")}
    assert len(given) > 50
    given |= {"FLEETGATE_REDIS__URL": "redis://127.0.0.1", "FLEETGATE_DISCOVERY__REGISTRATIONS__SECRET": "s" * 20}
    for variable, default in given.items():
        monkeypatch.setenv(variable, default)
    load_config(None)
    monkeypatch.setenv("FLEETGATE_LISTEN__PORTS", "1")
    with pytest.raises(ConfigError):
        load_config(None)


def test_every_public_code_has_its_words_on_the_page_and_a_place_that_explains_it() -> None:
    found = messages()
    assert {each.code for each in found} >= CODES
    assert places().keys() >= CODES
    assert all(re.search(r"[A-Za-z]{4}", each.words) for each in found), "nothing to search for"


@pytest.mark.parametrize(
    "words", ["Rate limit reached for", "The API key is missing", "does not exist or you may not use it"]
)
def test_an_error_is_found_by_its_words(words: str) -> None:
    rows = [line for line in (ROOT / "docs" / "errors.md").read_text().splitlines() if words in line]
    assert len(rows) == 1 and "troubleshooting.md#" in rows[0]
