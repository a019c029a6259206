"""The HTTP status that an error of a node stands for, where it came as an event."""

import json
from typing import Any

import pytest

from gateway.core.dialects.answers import find_error_status


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"code": 404}, 404),
        ({"code": 599, "type": "api_error"}, 599),
        ({"code": 99}, 400),
        ({"code": 600}, 400),
        ({"code": "404"}, 400),
        ({"code": True}, 400),
        ({"type": "BadRequestError"}, 400),
        ({"type": "InternalServerError"}, 500),
        ({"type": "internal_error", "code": None}, 500),
        ({"type": "api_error"}, 500),
        ({}, 400),
    ],
)
def test_an_errors_code_is_its_status_and_else_whom_it_blames(error: dict[str, Any], status: int) -> None:
    assert find_error_status(json.dumps({"error": error}).encode()) == status


@pytest.mark.parametrize("answer", [b"", b"[]", b"{", b"{}", b'{"error":"no"}', b'{"error":null}'])
def test_what_is_no_error_blames_the_node(answer: bytes) -> None:
    assert find_error_status(answer) == 500
