"""The chart's gateways: how they stop, what replaces their pods, and what is refused."""

import pytest

from gateway.wiring.read_at_start import READ_AT_START
from tests.charts.helm import MISSING, documents, found_helm, refused
from tests.charts.objects import gateway_config, one, parsed

pytestmark = pytest.mark.skipif(found_helm() is None, reason=MISSING)
POOL = ("nodes.a.profile=nemotron-3-ultra-8xh200-fp8", "nodes.a.model=nemotron-3-ultra")


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [((), 150), (("config.timeouts.shutdown=600",), 630), (("config.timeouts.shutdown_delay=2.5",), 143)],
)
def test_a_gateway_has_the_time_of_its_own_drain(settings: tuple[str, ...], seconds: int) -> None:
    objects = documents("try", *settings)
    assert one(objects, "Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == seconds
    timeouts = parsed(gateway_config(objects))["timeouts"]
    assert seconds > float(timeouts["shutdown_delay"]) + timeouts.get("shutdown", 120) + 5
    assert float(timeouts["shutdown_delay"]) >= 2, "a Service forgets a pod some seconds after its SIGTERM"


def test_a_gateway_rolls_one_at_a_time_and_never_below() -> None:
    spec = one(documents("try"), "Deployment")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    spread = spec["template"]["spec"]["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    assert one(documents("try"), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_probes_ask_for_what_they_mean() -> None:
    (container,) = one(documents("try"), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready?without_nodes_after=15"
    (strict,) = one(documents("try", "gateway.readyWithoutNodes=false"), "Deployment")["spec"]["template"]["spec"][
        "containers"
    ]
    assert strict["readinessProbe"]["httpGet"]["path"] == "/ready"


def test_the_configuration_is_mounted_as_a_folder() -> None:
    """A file mounted by subPath is never seen to change."""
    (container,) = one(documents("try"), "Deployment")["spec"]["template"]["spec"]["containers"]
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == "config"]
    assert mount == {"name": "config", "mountPath": "/etc/fleetgate", "readOnly": True}
    assert container["args"] == ["serve", "--config", "/etc/fleetgate/gateway.yaml"]


def of_restart(*settings: str) -> str:
    annotations = one(documents("try", *settings), "Deployment")["spec"]["template"]["metadata"]["annotations"]
    found: str = annotations["fleetgate/read-at-start"]
    return found


SETTINGS = {
    "listen": "listen.max_connections=5",
    "admin": "admin.open_metrics=false",
    "workers": "workers=2",
    "log": "log.level=debug",
    "telemetry": "telemetry.metrics.max_nodes=9",
    "redis.cluster": "redis.cluster=true",
    "redis.prefix": "redis.prefix=other",
    "access.stored": "access.stored=false,config.no_auth=true",
    "access.cached_keys": "access.cached_keys=5",
    "access.outage": "access.outage=5",
    "access.audit_lines": "access.audit_lines=5",
    "usage": "usage.hours=5",
    "discovery": "discovery.registrations.skew=1",
    "response_secret": "response_secret.env=OTHER",
    "responses.stored": "responses.stored=false",
    "requests.max_headers": "requests.max_headers=4096",
    "timeouts.headers": "timeouts.headers=5",
    "timeouts.client_stall": "timeouts.client_stall=5",
    "timeouts.shutdown": "timeouts.shutdown=5",
}
"""One change of each setting that is read at start."""


@pytest.mark.parametrize("setting", READ_AT_START)
def test_what_is_read_at_start_replaces_the_pods(setting: str) -> None:
    assert of_restart(f"config.{SETTINGS[setting]}") != of_restart()


@pytest.mark.parametrize(
    "setting",
    [
        "limits.default.requests_per_minute=5",
        "thinking.floor=9",
        "timeouts.idle=9",
        "access.wrong_keys_per_minute=9",
        "requests.max_body=4096",
        "redis.timeout=1",
        "models[0].name=a",
    ],
)
def test_what_is_reloaded_cuts_no_stream(setting: str) -> None:
    assert of_restart(f"config.{setting}") == of_restart()


def test_a_redis_that_is_new_replaces_the_pods() -> None:
    without = of_restart("valkey.enabled=false", "config.no_auth=true")
    assert of_restart("valkey.enabled=false", "config.no_auth=true", "redis.urlKey=url") != without


@pytest.mark.parametrize("setting", ["tokenizer=/models/a", "routing_group=other"])
def test_of_a_model_some_is_read_at_start(setting: str) -> None:
    changed = of_restart("config.models[0].name=a", f"config.models[0].{setting}")
    assert changed != of_restart("config.models[0].name=a")


def test_settings_go_over_what_the_chart_writes() -> None:
    config = parsed(gateway_config(documents("try", "config.timeouts.shutdown_delay=3", "config.listen.port=8081")))
    assert config["timeouts"] == {"shutdown_delay": 3}
    assert config["listen"] == {"host": "0.0.0.0", "port": 8081}
    (container,) = one(documents("try", "config.listen.port=8081"), "Deployment")["spec"]["template"]["spec"][
        "containers"
    ]
    assert container["ports"][0]["containerPort"] == 8081


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        (("valkey.enabled=false",), "nobody may call"),
        (("valkey.enabled=false", "config.no_auth=true", *POOL), "name the Secret's keys with the URLs"),
        (("valkey.enabled=false", "redis.urlKey=a", *POOL), "redis.workerUrlKey"),
        (("nodes.a.model=m",), "nodes.a.profile"),
        (("nodes.a.profile=p", "nodes.a.autoscaling.enabled=true"), "nodes.a.model"),
        (("nodes.a.profile=p", "nodes.a.models.storage=existing"), "models.claimName"),
        (("nodes.a.profile=p", "nodes.a.kind=LeaderWorkerSet", "nodes.a.models.storage=perNode"), "models.storage"),
        (("gateway.replica=3",), "replica"),
        (("nodes.a.gpus=many",), "/nodes/a/gpus"),
        (("nodes.A.profile=p",), "propertyName 'A'"),
        (("nodes.a.profile=p", "nodes.a.spot=ibm"), "/nodes/a/spot"),
    ],
)
def test_a_mistake_is_refused_and_named(settings: tuple[str, ...], word: str) -> None:
    assert word in refused(*settings)
