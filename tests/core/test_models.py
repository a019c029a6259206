"""Model names: what clients may call them, and what nodes are asked for."""

from collections.abc import Collection

import pytest

from gateway.core.access.tenants import Tenant
from gateway.core.errors import InvalidRequest, ModelNotFound, NoNodeReady
from gateway.core.models import Models

ANYONE = Tenant("anyone")
ONLY_A = Tenant("only a", frozenset({"a"}))
OPEN = Models()
LISTED = Models(["a", "b"], {"alias": "a", "other": "b"})
SERVED = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("models", "name", "tenant", "served", "expected"),
    [
        (OPEN, "a", ANYONE, SERVED, "a"),
        (OPEN, "a", ONLY_A, SERVED, "a"),
        (OPEN, None, ANYONE, ["a"], "a"),
        (OPEN, None, ONLY_A, SERVED, "a"),
        (LISTED, "a", ANYONE, SERVED, "a"),
        (LISTED, "alias", ANYONE, SERVED, "a"),
        (LISTED, "other", ANYONE, SERVED, "b"),
        (LISTED, "alias", ONLY_A, SERVED, "a"),
        (LISTED, None, ONLY_A, SERVED, "a"),
        (LISTED, None, ANYONE, ["b", "c"], "b"),
        (LISTED, "a", ANYONE, [], "a"),
        (LISTED, "a", ANYONE, ["b"], "a"),
        (LISTED, "alias", ANYONE, [], "a"),
    ],
)
def test_a_name_stands_for_a_model(
    models: Models, name: str | None, tenant: Tenant, served: Collection[str], expected: str
) -> None:
    assert models.resolve(name, tenant, served) == expected


@pytest.mark.parametrize(
    ("models", "name", "tenant", "served"),
    [
        (OPEN, "d", ANYONE, SERVED),
        (OPEN, "", ANYONE, SERVED),
        (OPEN, "A", ANYONE, SERVED),
        (OPEN, "b", ONLY_A, SERVED),
        (OPEN, "alias", ANYONE, SERVED),
        (LISTED, "c", ANYONE, SERVED),
        (LISTED, "b", ONLY_A, SERVED),
        (LISTED, "other", ONLY_A, SERVED),
        (LISTED, "d", ANYONE, []),
        (Models([], {"alias": "gone"}), "alias", ANYONE, SERVED),
    ],
)
def test_what_is_not_there_and_what_is_not_allowed_look_the_same(
    models: Models, name: str, tenant: Tenant, served: Collection[str]
) -> None:
    with pytest.raises(ModelNotFound) as caught:
        models.resolve(name, tenant, served)
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")
    assert repr(name) in caught.value.message


def test_before_any_node_has_spoken_a_name_may_still_turn_out_to_be_good() -> None:
    for name in ("a", None):
        with pytest.raises(NoNodeReady) as caught:
            OPEN.resolve(name, ANYONE, [])
        assert caught.value.retry_after


@pytest.mark.parametrize(("models", "tenant"), [(OPEN, ANYONE), (LISTED, ANYONE), (OPEN, Tenant("x", frozenset()))])
def test_without_a_name_there_must_be_one_model(models: Models, tenant: Tenant) -> None:
    with pytest.raises(InvalidRequest) as caught:
        models.resolve(None, tenant, SERVED)
    assert (caught.value.param, caught.value.code) == ("model", "missing_model")


@pytest.mark.parametrize(
    ("models", "tenant", "served", "offered"),
    [
        (OPEN, ANYONE, SERVED, {"a": "a", "b": "b", "c": "c"}),
        (OPEN, ONLY_A, SERVED, {"a": "a"}),
        (LISTED, ANYONE, SERVED, {"a": "a", "b": "b", "alias": "a", "other": "b"}),
        (LISTED, ANYONE, ["a", "c"], {"a": "a", "alias": "a"}),
        (LISTED, ONLY_A, SERVED, {"a": "a", "alias": "a"}),
        (LISTED, ANYONE, [], {}),
    ],
)
def test_what_is_offered(models: Models, tenant: Tenant, served: Collection[str], offered: dict[str, str]) -> None:
    """Only what the tenant may use and some node serves; every name on offer resolves to what it was listed for."""
    listed = models.offered(tenant, served)
    assert dict(listed) == offered and len(listed) == len(offered)
    for public, model in listed:
        assert models.resolve(public, tenant, served) == model
