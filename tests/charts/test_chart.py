"""The chart: what it renders is valid, hardened and drained, and its gateways take their configuration."""

import re
from pathlib import Path
from typing import Any

import pytest

from gateway.config.tree import Config
from tests.charts.helm import CHART, MISSING, documents, found_helm, helm, rendered
from tests.charts.manifests import EXAMPLES, FOLDER, manifest
from tests.charts.objects import (
    check,
    containers,
    gateway_config,
    gateway_environment,
    one,
    parsed,
    pods,
    selects,
)
from tests.support.rights import documented

pytestmark = pytest.mark.skipif(found_helm() is None, reason=MISSING)
POOL = ("nodes.a.profile=nemotron-3-ultra-8xh200-fp8", "nodes.a.model=nemotron-3-ultra")


@pytest.mark.parametrize("example", EXAMPLES)
def test_helm_finds_no_fault(example: str) -> None:
    done = helm("lint", str(CHART), "--strict", "--values", str(CHART / "examples" / f"{example}.yaml"))
    assert "0 chart(s) failed" in done.stdout


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_plain_manifests_are_the_rendered_ones(example: str) -> None:
    assert (FOLDER / f"{example}.yaml").read_text() == manifest(example), "run `make manifests`"


def test_there_are_no_other_manifests() -> None:
    assert sorted(file.stem for file in FOLDER.glob("*.yaml")) == EXAMPLES


@pytest.mark.parametrize("version", ["1.27", "1.37"])
@pytest.mark.parametrize("example", EXAMPLES)
def test_objects_are_those_of_the_api(example: str, version: str) -> None:
    """By the schemas of Kubernetes, without unknown fields. Those of operators: `make check-charts`."""
    validate = pytest.importorskip("kubernetes_validate")
    known = 0
    for each in documents(example):
        if "." not in each["apiVersion"] or each["apiVersion"].split("/")[0].endswith(".k8s.io"):
            if each["kind"] in ("LeaderWorkerSet", "HTTPRoute"):
                continue
            validate.validate(each, version, strict=True)
            known += 1
    assert known >= 6
    for name, pod in pods(documents(example)):
        if name.startswith("LeaderWorkerSet"):
            labels = pod["metadata"]["labels"]
            spec = {"selector": {"matchLabels": labels}, "template": pod}
            whole = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": spec}
            validate.validate(whole, version, strict=True)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_gateway_takes_its_configuration(example: str, tmp_path: Path) -> None:
    objects = documents(example)
    done = check(gateway_config(objects), gateway_environment(objects), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("example", EXAMPLES)
def test_no_secret_stands_in_an_object(example: str) -> None:
    """They come from the Secret, by name: in the file as {env: NAME}, whose variable the container has."""
    objects = documents(example)
    assert not any(each["kind"] == "Secret" for each in objects)
    named = gateway_environment(objects)
    config = Config.model_json_schema()  # whatever is a secret there
    assert "Secret" in config["$defs"]

    def refer(value: Any) -> None:
        if isinstance(value, dict) and value.keys() == {"env"}:
            assert value["env"] in named
        elif isinstance(value, dict):
            for key, inner in value.items():
                assert (
                    key not in ("token", "secret", "response_secret", "api_key", "url")
                    or not isinstance(inner, str)
                    or inner.startswith("http://")
                )
                refer(inner)
        elif isinstance(value, list):
            for inner in value:
                refer(inner)

    refer(parsed(gateway_config(objects)))
    for _, pod in pods(objects):
        for container in containers(pod):
            for variable in container.get("env", []):
                if any(word in variable["name"] for word in ("SECRET", "TOKEN", "PASSWORD")):
                    assert "secretKeyRef" in variable["valueFrom"]


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_pod_is_locked_down(example: str) -> None:
    """As the Pod Security Standard `restricted` asks for, and more."""
    for name, pod in pods(documents(example)):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True and spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False
        for container in containers(pod):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False and security["capabilities"] == {"drop": ["ALL"]}
            assert "privileged" not in security
            is_vllm = container["args"][0] == "launch" if "args" in container else False
            assert security["readOnlyRootFilesystem"] is not is_vllm, name


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_pod_has_a_network_policy(example: str) -> None:
    objects = documents(example)
    policies = [each["spec"]["podSelector"]["matchLabels"] for each in objects if each["kind"] == "NetworkPolicy"]
    for name, pod in pods(objects):
        assert any(selects(each, pod) for each in policies), name


@pytest.mark.parametrize("example", EXAMPLES)
def test_selectors_find_their_pods_and_no_others(example: str) -> None:
    objects = documents(example)
    for each in objects:
        if each["kind"] == "Service" or (each["kind"] == "PodDisruptionBudget"):
            spec = each["spec"]
            selector = spec["selector"].get("matchLabels", spec["selector"])
            found = {
                pod["metadata"]["labels"]["app.kubernetes.io/component"]
                for _, pod in pods(objects)
                if selects(selector, pod)
            }
            assert len(found) == 1, each["metadata"]["name"]


def test_only_clients_and_monitoring_reach_a_gateway() -> None:
    (data, admin) = one(documents("fleet"), "NetworkPolicy")["spec"]["ingress"]
    assert (data["ports"][0]["port"], admin["ports"][0]["port"]) == (8080, 9091)
    assert "ingress-nginx" in str(data["from"]) and "monitoring" in str(admin["from"])
    (data, admin) = one(documents("try"), "NetworkPolicy")["spec"]["ingress"]
    assert "from" not in data and "from" in admin, "clients may be anybody, admins nobody"
    (only,) = one(documents("try", "networkPolicy.monitoring=null"), "NetworkPolicy")["spec"]["ingress"]
    assert only["ports"][0]["port"] == 8080, "without a peer the admin port is closed, not open to all"


def test_only_gateways_and_monitoring_reach_a_node() -> None:
    (requests, metrics) = one(documents("fleet"), "NetworkPolicy", "fleetgate-nemotron")["spec"]["ingress"]
    assert requests["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "gateway"
    assert "monitoring" in str(metrics["from"])


def test_valkeys_users_have_the_documented_rights() -> None:
    files = CHART / "files"
    assert (files / "gateway-rights.txt").read_text().split() == documented("rights")
    assert (files / "worker-rights.txt").read_text().split() == documented("worker-rights")


def test_another_prefix_is_in_the_rights() -> None:
    assert "~fg1:*" in rendered("try")
    assert "~staging1:*" in rendered("try", "config.redis.prefix=staging")


def test_the_ingress_passes_events_on_and_waits() -> None:
    annotations = one(documents("fleet"), "Ingress")["metadata"]["annotations"]
    kept = {name.removeprefix("nginx.ingress.kubernetes.io/"): value for name, value in annotations.items()}
    assert kept["proxy-buffering"] == "off" and int(kept["proxy-read-timeout"]) >= 1800
    assert kept["proxy-body-size"] == "16m", "requests.max_body is 16 MiB"


def test_the_route_has_no_timeout() -> None:
    (rule,) = one(documents("two-machines"), "HTTPRoute")["spec"]["rules"]
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}


def test_every_key_of_the_secret_is_in_the_page_and_made_by_the_quick_start() -> None:
    """Those of the default values, and those of a Redis that is not the chart's."""
    asked = {
        variable["valueFrom"]["secretKeyRef"]["key"]
        for example in EXAMPLES
        for _, pod in pods(documents(example))
        for container in containers(pod)
        for variable in container.get("env", [])
        if "secretKeyRef" in variable.get("valueFrom", {})
    }
    docs = FOLDER.parent
    assert all(f"`{key}`" in (docs / "kubernetes.md").read_text() for key in asked)
    made = set(re.findall(r"--from-literal=([\w-]+)=", (docs / "quickstart.md").read_text()))
    assert made == asked - {"redis-url", "worker-redis-url", "hf-token"}
    notes = (CHART / "templates" / "NOTES.txt").read_text()
    assert all(f'"{key}"' in notes for key in made)
