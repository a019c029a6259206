"""What a gateway told, on a small terminal and in a pipe: nothing that somebody has to copy or to count is cut off."""

import pytest

from gateway.cli.tables import new_table, print_table

ROW = ("key_6a129c47e27ff709", "research", "nightly batch", "2026-11-25 02:39", "2026-12-25 02:39", "12,345,678,901")


@pytest.mark.parametrize("columns", ["40", "80", ""])
def test_a_row_is_a_line_with_everything(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    table = new_table("key", "tenant", "label", "created", "expires", "tokens")
    table.add_row(*ROW)
    print_table(table)
    assert "  ".join(ROW) in capsys.readouterr().out.replace("   ", "  ")
