"""How many connections a limit of open files has room for."""

import pytest

from gateway.api.open_files import connections_within, files_for


@pytest.mark.parametrize("wanted", [1, 2, 92, 100, 1_000, 10_000, 100_000])
def test_the_limit_that_is_asked_for_is_enough_and_not_much_more(wanted: int) -> None:
    assert wanted <= connections_within(files_for(wanted)) <= wanted + 1


@pytest.mark.parametrize("limit", [0, 3, 64, 256, 1024, 65_536, 1 << 20])
def test_clients_and_their_nodes_fit_into_the_limit(limit: int) -> None:
    assert 1 <= connections_within(limit) <= max(1, limit // 2)
