"""OpenTelemetry's variables: those that do nothing are named, with the remedy; the others are not."""

from pathlib import Path

import pytest

from gateway.config.otel_variables import doubtful_variables
from gateway.config.telemetry import TracesConfig, library_installed

ON = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
SHARE = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"}


def doubted(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], **settings: object) -> dict[str, str]:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = doubtful_variables(TracesConfig.model_validate(settings), variables)
    return {each.where.removeprefix("the variable "): each.expected for each in found}


@pytest.mark.parametrize(
    ("variables", "remedy"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}, "http://otel-collector:4318"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a b"}, "http://otel-collector:4318"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "zstd"}, "gzip"),
        ({"OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere/ca.pem"}, "mend the path"),
        ({"OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY": "/"}, "mend the path"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "Bearer hidden-word"}, "NAME=VALUE"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "a=1,hidden-word"}, "NAME=VALUE"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "ten"}, "such as 10"),
        ({"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "-1"}, "such as 10"),
        ({"OTEL_TRACES_EXPORTER": "jaeger"}, "set otlp"),
        ({"OTEL_TRACES_SAMPLER": "xray"}, "telemetry.traces.ratio"),
        ({"OTEL_TRACES_SAMPLER_ARG": "0.5"}, "OTEL_TRACES_SAMPLER="),
        ({**SHARE, "OTEL_TRACES_SAMPLER_ARG": "10%"}, "such as 0.01"),
        ({**SHARE, "OTEL_TRACES_SAMPLER_ARG": "2"}, "such as 0.01"),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": ""}, "such as 0.01"),
        ({"OTEL_BSP_SCHEDULE_DELAY": "-5"}, "such as 5000"),
        ({"OTEL_BSP_EXPORT_TIMEOUT": "0"}, "such as 30000"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "4096"}, "telemetry.traces.max_queue"),
        ({"OTEL_ATTRIBUTE_COUNT_LIMIT": "many"}, "such as 128"),
        ({"OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "1.5"}, "characters"),
        ({"OTEL_SPAN_LINK_COUNT_LIMIT": "x"}, "such as 128"),
        ({"OTEL_SDK_DISABLED": "yes"}, "true"),
    ],
    ids=lambda given: next(reversed(given), "") if isinstance(given, dict) else "",
)
def test_a_variable_that_does_nothing_is_named_with_the_remedy(
    variables: dict[str, str], remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = doubted(monkeypatch, {**ON, **variables})
    (words,) = found.values()
    at_fault = "OTEL_TRACES_SAMPLER_ARG" if "OTEL_TRACES_SAMPLER_ARG" in variables else next(iter(variables))
    assert list(found) == [at_fault] and remedy in words and "hidden-word" not in words


def test_variables_that_are_right_raise_no_doubt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.touch()
    right = {
        **ON,
        **SHARE,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(file),
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20x,other=a=b, ",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2.5",
        "OTEL_RESOURCE_ATTRIBUTES": "service.namespace=a,deployment.environment.name=b",
        "OTEL_SERVICE_NAME": "gateway",
        "OTEL_TRACES_EXPORTER": "OTLP",
        "OTEL_SDK_DISABLED": "False",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_ATTRIBUTE_COUNT_LIMIT": "",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "64",
        "OTEL_METRICS_EXPORTER": "whatever: of others",
    }
    assert doubted(monkeypatch, right) == {}


def test_variables_of_others_are_left_alone_where_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doubted(monkeypatch, {"OTEL_TRACES_SAMPLER": "xray", "OTEL_BSP_SCHEDULE_DELAY": "x"}) == {}
    off = {**ON, "OTEL_SDK_DISABLED": "true", "OTEL_BSP_SCHEDULE_DELAY": "x"}
    assert doubted(monkeypatch, off) == {}


@pytest.mark.skipif(not library_installed(), reason="fleetgate[otel] is not installed")
def test_settings_of_the_file_stand_over_them(monkeypatch: pytest.MonkeyPatch) -> None:
    found = doubted(
        monkeypatch, {**SHARE, "OTEL_EXPORTER_OTLP_ENDPOINT": "x"}, endpoint="http://collector:4318", ratio=0.5
    )
    assert list(found) == ["OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"]
    assert "telemetry.traces.ratio" in found["OTEL_TRACES_SAMPLER"]
