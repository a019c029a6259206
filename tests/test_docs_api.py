"""docs/api.md lists what clients can be told: every error code, every endpoint."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.core.dialects import DIALECTS
from gateway.core.errors import ClientGone, GatewayError

PAGE = (Path(__file__).parent.parent / "docs" / "api.md").read_text()
SOURCE = "".join(file.read_text() for file in (Path(__file__).parent.parent / "gateway").rglob("*.py"))


def leaves(kind: type[GatewayError]) -> Iterator[type[GatewayError]]:
    """The errors that are raised; those above them only sort them."""
    below = kind.__subclasses__()
    if not below:
        yield kind
    for each in below:
        yield from leaves(each)


CODES = {kind.default_code for kind in leaves(GatewayError) if kind is not ClientGone}  # nobody is there to be told
CODES |= set(re.findall(r'\bcode="(\w+)"', SOURCE))


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_stands_in_the_page(code: str) -> None:
    assert f"`{code}`" in PAGE


@pytest.mark.parametrize("path", [dialect.path for dialect in DIALECTS])
def test_every_endpoint_stands_in_the_page(path: str) -> None:
    assert f"`{path}`" in PAGE
