"""All rules of pressure together."""

from dataclasses import dataclass, field

from gateway.core.pressure.early_ends import EarlyEndRules
from gateway.core.pressure.factor import FactorRules
from gateway.core.pressure.squeeze import SqueezeRules


@dataclass(frozen=True, slots=True)
class PressureRules:
    """Off unless `enabled`."""

    enabled: bool = False
    factor: FactorRules = field(default_factory=FactorRules)
    squeeze: SqueezeRules = field(default_factory=SqueezeRules)
    early_ends: EarlyEndRules = field(default_factory=EarlyEndRules)
