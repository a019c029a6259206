"""The pages that are made from the code: `python -m tests.docs.references` writes them (`make references`)."""

from collections.abc import Callable

from tests.docs import admin_api_page, commands_page, errors_page, settings_page
from tests.docs.site_hooks import ROOT

PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings_page.page,
    "commands.md": commands_page.page,
    "admin-api.md": admin_api_page.page,
    "errors.md": errors_page.page,
}


def main() -> None:
    """Write all of them."""
    for name, page in PAGES.items():
        (ROOT / "docs" / name).write_text(page())


if __name__ == "__main__":
    main()
