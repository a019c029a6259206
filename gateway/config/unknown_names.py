"""Names that set nothing: of settings in the file, and of variables with our prefix."""

import re
from collections.abc import Mapping

from gateway.config.document import ConfigProblem, Document
from gateway.config.expectations import did_you_mean, settings_at

PREFIX = "FLEETGATE_"
"""Begins the variables that are settings."""

_FOREIGN_VARIABLE = re.compile(
    r"FLEETGATE_(KEY|ADMIN_URL|WORKER_.+|(.+_)?(SERVICE_(HOST|PORT(_.+)?)|PORT_\d+_(TCP|UDP).*))"
)
"""`fleetgate connect`'s key, where commands find a gateway, settings of workers, variables that Kubernetes sets for a
Service called fleetgate."""


def unknown_settings(document: Document) -> list[ConfigProblem]:
    """Top-level names that are no settings. (pydantic finds those further down.)"""
    known = settings_at(())
    return [
        ConfigProblem(document.place((name,)), name, "is not a setting" + did_you_mean(name, known))
        for name in document.data
        if name not in known
    ]


def unknown_variables(environment: Mapping[str, str]) -> list[ConfigProblem]:
    """Variables with our prefix that set nothing, such as typos."""
    known = settings_at(())
    problems = []
    for variable, value in sorted(environment.items()):
        if not variable.startswith(PREFIX) or _is_foreign(variable, value):
            continue
        setting = variable.removeprefix(PREFIX).lower().partition("__")[0]
        if setting not in known:  # deeper levels are checked with the tree
            hint = _two_underscores(setting, known) or did_you_mean(setting, known)
            problems.append(ConfigProblem(f"the variable {variable}", "", "sets nothing" + hint))
    return problems


def _is_foreign(variable: str, value: str) -> bool:
    return _FOREIGN_VARIABLE.fullmatch(variable) is not None or value.startswith(("tcp://", "udp://"))


def _two_underscores(setting: str, known: list[str]) -> str:
    """A hint for the likeliest typo: one underscore instead of two between a section and its setting."""
    for section in known:
        inner = setting.removeprefix(f"{section}_")
        if inner != setting and inner in settings_at((section,)):
            return f": did you mean {PREFIX}{section.upper()}__{inner.upper()}?"
    return ""
