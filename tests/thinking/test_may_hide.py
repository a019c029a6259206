"""Whether anything at all may be hidden from a tenant: any layer of the rules can say so."""

import pytest

from gateway.core.thinking.decision import ThinkingRules
from gateway.core.thinking.policy import PolicyBook, PolicyLayer

HIDE, SHOW = PolicyLayer(thinking=ThinkingRules(hide=True)), PolicyLayer(thinking=ThinkingRules(hide=False))


@pytest.mark.parametrize(
    ("gateway", "models", "tenant", "expected"),
    [
        (None, {}, None, False),
        (SHOW, {"m": SHOW}, PolicyLayer(per_model={"m": SHOW}), False),
        (HIDE, {}, None, True),
        (HIDE, {}, SHOW, True),
        (None, {"m": HIDE}, None, True),
        (None, {}, HIDE, True),
        (None, {}, PolicyLayer(per_model={"m": HIDE}), True),
    ],
)
def test_any_layer_may_hide(
    gateway: PolicyLayer | None, models: dict[str, PolicyLayer], tenant: PolicyLayer | None, expected: bool
) -> None:
    assert PolicyBook(gateway, models).may_hide(tenant) is expected
