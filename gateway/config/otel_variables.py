"""What is wrong with OpenTelemetry's variables: its library ignores some, and refuses to work with others.

`fleetgate check` prints each as a warning; `fleetgate serve` logs it once (`config_warning`). Values are not shown:
some hold credentials.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from math import isfinite
from pathlib import Path

from gateway.config.document import ConfigProblem
from gateway.config.telemetry import ENDPOINTS, SAMPLERS, SHARED_SAMPLERS, TracesConfig, is_endpoint, share_in

_PAIRS = re.compile(r"\s*[^=,\s]+\s*=[^,]*(,\s*([^=,\s]+\s*=[^,]*)?)*")


def doubtful_variables(traces: TracesConfig, environment: Mapping[str, str] = os.environ) -> list[ConfigProblem]:
    """Variables that do not do what they seem to; none while requests are not recorded. An empty one is as none."""
    given = {name: value for name, value in environment.items() if name.startswith("OTEL_") and value.strip()}
    found = [*_switches(given)]
    if traces.enabled:
        found += [*_sampler(traces, given), *_export(traces, given), *_bounds(given)]
    return [ConfigProblem(f"the variable {name}", "", words) for name, words in found]


def _switches(given: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if given.get("OTEL_SDK_DISABLED", "false").strip().lower() not in ("true", "false"):
        yield "OTEL_SDK_DISABLED", "is neither true nor false, which is as false: set one of them"


def _sampler(traces: TracesConfig, given: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    sampler, share = given.get("OTEL_TRACES_SAMPLER"), given.get("OTEL_TRACES_SAMPLER_ARG")
    if "ratio" in traces.model_fields_set:
        for name in ("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"):
            if name in given:
                yield name, "has no effect beside telemetry.traces.ratio: unset one of them"
    elif sampler is None:
        if share is not None:
            yield "OTEL_TRACES_SAMPLER_ARG", "has no effect alone: set OTEL_TRACES_SAMPLER=parentbased_traceidratio"
    elif sampler.strip().lower() not in (*SAMPLERS, *SHARED_SAMPLERS):
        remedy = "set parentbased_traceidratio, and OTEL_TRACES_SAMPLER_ARG; or telemetry.traces.ratio"
        yield "OTEL_TRACES_SAMPLER", f"is no sampler that is known here ({traces.ratio:g} is recorded): {remedy}"
    elif share_in(given) is None:
        words = f"is not a share from 0 to 1 ({traces.ratio:g} is recorded): set one, such as 0.01"
        yield "OTEL_TRACES_SAMPLER_ARG", words


def _export(traces: TracesConfig, given: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if given.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() != "otlp":
        yield "OTEL_TRACES_EXPORTER", "has no effect: spans are sent by OTLP alone; set otlp, or none for no traces"
    if traces.endpoint is None:
        for name in ENDPOINTS:
            if name in given and not is_endpoint(given[name].strip()):
                yield name, "is no URL of a collector: set one like http://otel-collector:4318"
    for name, value in _of_signal(given, "PROTOCOL"):
        if value.strip().lower() != "http/protobuf":
            words = "has no effect: set http/protobuf, and the endpoint of the collector's HTTP port (4318 mostly)"
            yield name, words
    for name, value in _of_signal(given, "COMPRESSION"):
        if value.strip().lower() not in ("none", "gzip", "deflate"):
            yield name, "is not a compression that can be sent: set gzip, deflate or none"
    for kind in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"):
        for name, value in _of_signal(given, kind):
            if not _is_readable(Path(value)):
                yield name, "names no file that can be read: mend the path or the file's rights"
    for name, value in (*_of_signal(given, "HEADERS"), *_named(given, "OTEL_RESOURCE_ATTRIBUTES")):
        if _PAIRS.fullmatch(value) is None:
            yield name, "is no list of NAME=VALUE,NAME=VALUE: what cannot be read of it is left out"


def _bounds(given: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in ("OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"):
        if name in given:
            yield name, "has no effect: telemetry.traces.max_queue bounds the spans that wait"
    whole: list[tuple[str, Callable[[str], bool], str]] = [
        ("OTEL_BSP_SCHEDULE_DELAY", _is_positive, "a whole number of milliseconds above 0, such as 5000"),
        ("OTEL_BSP_EXPORT_TIMEOUT", _is_positive, "a whole number of milliseconds above 0, such as 30000"),
    ]
    for kind in ("", "SPAN_", "EVENT_", "LINK_"):
        whole.append((f"OTEL_{kind}ATTRIBUTE_COUNT_LIMIT", _is_whole, "a whole number, such as 128"))
    for kind in ("", "SPAN_"):
        whole.append((f"OTEL_{kind}ATTRIBUTE_VALUE_LENGTH_LIMIT", _is_whole, "a whole number of characters"))
    for kind in ("EVENT", "LINK"):
        whole.append((f"OTEL_SPAN_{kind}_COUNT_LIMIT", _is_whole, "a whole number, such as 128"))
    whole += [
        (name, _is_duration, "a number of seconds above 0, such as 10") for name, _ in _of_signal(given, "TIMEOUT")
    ]
    for name, holds, expected in whole:
        if name in given and not holds(given[name].strip()):
            yield name, f"is not {expected}: mend it, or unset it"


def _of_signal(given: Mapping[str, str], kind: str) -> list[tuple[str, str]]:
    """`kind` for all that is exported, and for traces alone."""
    return [*_named(given, f"OTEL_EXPORTER_OTLP_{kind}"), *_named(given, f"OTEL_EXPORTER_OTLP_TRACES_{kind}")]


def _named(given: Mapping[str, str], name: str) -> list[tuple[str, str]]:
    return [(name, given[name])] if name in given else []


def _is_duration(value: str) -> bool:
    try:
        return isfinite(float(value)) and float(value) > 0
    except ValueError:
        return False


def _is_whole(value: str) -> bool:
    return value.isascii() and value.isdigit()


def _is_positive(value: str) -> bool:
    return _is_whole(value) and int(value[:18]) > 0


def _is_readable(path: Path) -> bool:
    try:
        return path.is_file() and os.access(path, os.R_OK)
    except (OSError, ValueError):
        return False
