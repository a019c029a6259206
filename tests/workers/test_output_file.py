"""A file that takes another's place: whole or not at all, and nothing is left beside it."""

from pathlib import Path

import pytest

from workers.output_file import replaced_whole


@pytest.mark.parametrize("before", [None, "old"])
def test_what_breaks_off_changes_nothing(before: str | None, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    if before is not None:
        file.write_text(before)
    with pytest.raises(ZeroDivisionError), replaced_whole(file) as beside:
        beside.write_text("half")
        raise ZeroDivisionError
    assert [each.read_text() for each in tmp_path.iterdir()] == ([] if before is None else [before])


def test_two_at_once_are_both_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    with replaced_whole(file) as first:
        first.write_text("first")
        with replaced_whole(file) as second:
            second.write_text("second")
        assert file.read_text() == "second"
    assert [each.read_text() for each in tmp_path.iterdir()] == ["first"]
    assert file.stat().st_mode & 0o777 == 0o644
