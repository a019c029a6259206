"""Trees of settings from old names to new ones, and of a tenant or a key back to the names that Redis keeps."""

import copy
from typing import Any

import pytest

from gateway.core.setting_names import RENAMED_IN_TENANT, Names, use_new_names, use_stored_names

SECTIONS: dict[str, Names] = {
    "timeouts": {"silence": "node_hang", "plain": "non_streaming"},
    "tenants.*.limits": {"thinking": "reasoning"},
    "tenants.*.keys.*.limits": {"thinking": "reasoning"},
}


@pytest.mark.parametrize(
    ("given", "expected", "written"),
    [
        ({}, {}, {}),
        ({"timeouts": {"idle": 1}}, {"timeouts": {"idle": 1}}, {}),
        (
            {"timeouts": {"silence": 1, "idle": 2}},
            {"timeouts": {"node_hang": 1, "idle": 2}},
            {("timeouts", "node_hang"): ("timeouts", "silence")},
        ),
        (
            {"tenants": [{"limits": {}}, {"limits": {"thinking": 3}, "keys": [{"limits": {"thinking": 4}}]}]},
            {"tenants": [{"limits": {}}, {"limits": {"reasoning": 3}, "keys": [{"limits": {"reasoning": 4}}]}]},
            {
                ("tenants", 1, "limits", "reasoning"): ("tenants", 1, "limits", "thinking"),
                ("tenants", 1, "keys", 0, "limits", "reasoning"): ("tenants", 1, "keys", 0, "limits", "thinking"),
            },
        ),
        # What is not the shape that the setting has is left for the check that names it.
        ({"timeouts": 5}, {"timeouts": 5}, {}),
        ({"timeouts": None}, {"timeouts": None}, {}),
        ({"timeouts": ["silence"]}, {"timeouts": ["silence"]}, {}),
        ({"tenants": {"limits": {"thinking": 1}}}, {"tenants": {"limits": {"thinking": 1}}}, {}),
        ({"tenants": ["x", 3, None]}, {"tenants": ["x", 3, None]}, {}),
    ],
)
def test_old_names_are_replaced_and_where_they_stood_is_known(
    given: dict[str, Any], expected: dict[str, Any], written: dict[tuple[str | int, ...], tuple[str | int, ...]]
) -> None:
    before = copy.deepcopy(given)
    renaming = use_new_names(given, SECTIONS)
    assert renaming.data == expected
    assert renaming.written == written
    assert renaming.twice == ()
    assert given == before, "what was read stays as it is"


def test_of_both_names_the_new_one_counts_and_it_is_known() -> None:
    renaming = use_new_names({"timeouts": {"silence": 1, "node_hang": 2}}, SECTIONS)
    assert renaming.data == {"timeouts": {"node_hang": 2}}
    assert renaming.twice == (("timeouts", "node_hang"),)


def test_a_path_is_spelled_as_its_source_spells_it() -> None:
    renaming = use_new_names({"timeouts": {"silence": {"deep": 1}}}, SECTIONS)
    assert renaming.spelled(("timeouts", "node_hang")) == ("timeouts", "silence")
    assert renaming.spelled(("timeouts", "node_hang", "deep")) == ("timeouts", "silence", "deep")
    assert renaming.spelled(("timeouts", "idle")) == ("timeouts", "idle")
    assert renaming.spelled(()) == ()


def test_what_is_stored_keeps_the_names_that_older_gateways_know() -> None:
    limits = {"reasoning_tokens_per_minute": 5, "requests_per_minute": 1}
    stored = use_stored_names({"limits": limits, "per_model": [{"limits": dict(limits)}]})
    old = {"thinking_tokens_per_minute": 5, "requests_per_minute": 1}
    assert stored == {"limits": old, "per_model": [{"limits": old}]}
    assert use_new_names(stored, RENAMED_IN_TENANT).data == {"limits": limits, "per_model": [{"limits": limits}]}
