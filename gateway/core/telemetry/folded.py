"""The name under which tenants, models and nodes beyond a bound are counted together."""

from typing import Final

OTHER: Final = "(other)"
"""Names of tenants, nodes and configured models begin with a letter or a digit. A node may call a model of its own so:
that one is counted with the rest."""
