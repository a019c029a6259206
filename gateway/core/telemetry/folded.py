"""The name under which tenants, models and nodes beyond a bound are counted together."""

from typing import Final

OTHER: Final = "(other)"
"""No tenant, model or node is called so: their names begin with a letter or a digit."""
