"""What the console says of errors that have no text there: a client's own."""

import re
from collections.abc import Iterator
from pathlib import Path

import gateway.console
from gateway.core.errors import GatewayError
from gateway.request_record import ABOUT_THE_REQUEST


def test_what_has_no_text_has_a_meaning_on_the_page() -> None:
    def codes(kind: type[GatewayError]) -> Iterator[str]:
        yield kind.default_code
        for each in kind.__subclasses__():
            yield from codes(each)

    page = (Path(gateway.console.__file__).parent / "static" / "errors.js").read_text()
    table = page[page.index("MEANINGS = {") : page.index("};")]
    told = set(re.findall(r"^  (\w+): ", table, re.MULTILINE))
    assert told == {code for kind in ABOUT_THE_REQUEST for code in codes(kind)} | {"node_error"}
