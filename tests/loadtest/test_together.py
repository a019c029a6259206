"""The table of costs that were measured in the same seconds."""

from loadtest.together import table


def test_ratios_are_taken_within_each_round() -> None:
    lines = table(["one", "other"], [[10.0, 20.0], [30.0, 33.0], [20.0, 30.0]]).splitlines()
    assert lines[2] == "| one | 20.0 (10.0–30.0) | 1.000 (1.000–1.000) |"
    assert lines[3] == "| other | 30.0 (20.0–33.0) | 1.500 (1.100–2.000) |"
