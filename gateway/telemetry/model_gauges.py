"""The metrics of models, set at every scrape and every few seconds."""

import math
import os
from collections.abc import Iterable, Mapping

from prometheus_client import Gauge

from gateway.telemetry import definitions
from gateway.telemetry.label_names import LabelNames


class ModelGauges:
    """This process's view. Processes are added up, so a gauge says how many of them see a state."""

    def __init__(self, made: definitions.MetricSet, models: LabelNames) -> None:
        self._made = made
        self._model_names = models
        self._models: set[str] = set()
        self._pressed: set[str] = set()
        self._failing: set[tuple[str, str]] = set()

    def set_models(self, ready: Mapping[str, bool]) -> None:
        """Set the gauge of each model; one that is not among them is removed."""
        gauge = self._made[definitions.MODEL_READY]
        folded: dict[str, bool] = {}
        for name, is_ready in ready.items():  # where they are counted together: 0 once one of them has no node
            label = self._model_names.label(name)
            folded[label] = is_ready and folded.get(label, True)
        ready = folded
        for name in self._models - ready.keys():
            _remove(gauge, name)
        for name, is_ready in ready.items():
            gauge.labels(name).set(int(is_ready))
        self._models = set(ready)

    def set_factors(self, factors: Mapping[str, float]) -> None:
        """As `set_models`, for the factors of thinking budgets."""
        gauge = self._made[definitions.FACTOR]
        folded: dict[str, float] = {}
        for name, factor in factors.items():
            label = self._model_names.label(name)
            folded[label] = min(factor, folded.get(label, 1.0))
        factors = folded
        for name in self._pressed - factors.keys():
            gauge.labels(name).set(1)
            if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
                gauge.remove(name)
        for name, factor in factors.items():
            gauge.labels(name).set(factor)
        self._pressed = set(factors)

    def set_failing(self, failing: Iterable[tuple[str, str]]) -> None:
        """As `set_models`, for models and the dialects in which they fail."""
        gauge = self._made[definitions.MODEL_FAILING]
        now = {(self._model_names.label(model), dialect) for model, dialect in failing}
        for model, dialect in self._failing - now:
            gauge.labels(model, dialect).set(0)
            if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
                gauge.remove(model, dialect)
        for model, dialect in now:
            gauge.labels(model, dialect).set(1)
        self._failing = now


def _remove(gauge: Gauge, *labels: str) -> None:
    """Remove a series. prometheus-client cannot where there are several processes: their page leaves NaN out
    (`metrics.exposition`). A 0 would stand there for ever, and alerts would take the model for one without nodes."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        gauge.labels(*labels).set(math.nan)
    else:
        gauge.remove(*labels)
