"""compose.yaml and what stands around it, as files: who runs in which profile, and how it is locked down.

That it comes up and serves is tried by `make test-containers`.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from workers.profiles.load import load_profiles

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ENV = dict(line.split("=", 1) for line in (ROOT / ".env").read_text().splitlines() if line and not line.startswith("#"))
ALWAYS = {"gateway", "redis"}
GPU_PROFILES = ["gpu-h200", "gpu-h100-nvfp4"]
NODES = {"fake", "cpu", "node-h200", "node-h100-nvfp4"}


def active(*profiles: str) -> set[str]:
    """The services that `docker compose up` starts under these profiles."""
    return {n for n, s in SERVICES.items() if "profiles" not in s or set(s["profiles"]) & set(profiles)}


def test_a_plain_up_is_a_gateway_and_a_fake_node() -> None:
    assert ENV["COMPOSE_PROFILES"] == "fake"
    assert active("fake") == ALWAYS | {"fake"}


@pytest.mark.parametrize("profile", GPU_PROFILES)
def test_a_gpu_profile_never_contains_the_fake_node(profile: str) -> None:
    assert active(profile) & NODES == {profile.replace("gpu-", "node-")}
    node = SERVICES[profile.replace("gpu-", "node-")]
    assert node["profiles"] == [profile]
    assert "fake" not in " ".join(node["command"])


def test_each_profile_has_one_node_that_answers_to_the_name_node() -> None:
    for profile in ("fake", "cpu", *GPU_PROFILES):
        (node,) = active(profile) & NODES
        assert SERVICES[node]["networks"]["fleet"]["aliases"] == ["node"]
    assert active("observe") - ALWAYS == {"prometheus", "grafana"}
    assert active("ha") - ALWAYS == {"gateway-2", "haproxy"}


@pytest.mark.parametrize("name", [n for n in SERVICES if not n.startswith("node-")])
def test_everything_but_the_gpu_nodes_is_locked_down(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("profile", GPU_PROFILES)
def test_gpu_nodes_launch_a_profile_of_ours_with_time_to_drain(profile: str) -> None:
    node = SERVICES[profile.replace("gpu-", "node-")]
    command, name, *options = node["command"]
    assert command == "launch"
    assert load_profiles()[name].min_shared_memory_gb <= 64
    assert f"--model-dir=/models/{name}" in options
    assert "--price-kind=${PRICE_KIND:-on-demand}" in options, "the source of spot notices sets no price"
    assert node["shm_size"] == "64gb"
    assert node["stop_grace_period"] == "11m"  # 600 s of drain and the rest
    assert node["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


def test_the_image_for_gpu_machines_has_no_fake_node(tmp_path: Path) -> None:
    """It is deleted before the package is built, and everything else works without it."""
    steps = (ROOT / "docker" / "worker.Dockerfile").read_text()
    assert steps.index("COPY workers workers") < steps.index("rm -rf workers/fake") < steps.index("pip install")
    shutil.copytree(ROOT / "workers", tmp_path / "workers", ignore=shutil.ignore_patterns("fake", "__pycache__"))
    script = "import sys; sys.path[0] = sys.argv.pop(1); from workers.cli import main; main()"

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", script, str(tmp_path), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, env={"COLUMNS": "200"})

    assert "--tensor-parallel-size 8" in run("argv", "nemotron-3-ultra-8xh200-fp8").stdout
    refused = run("fake")
    assert refused.returncode == 2 and "No such command" in refused.stderr


def test_ports_are_published_on_this_machine_only_while_nobody_needs_a_key() -> None:
    assert ENV["FLEETGATE_NO_AUTH"] == "true"
    for service in SERVICES.values():
        for port in service.get("ports", []):
            assert re.match(r"\$\{\w+:-127\.0\.0\.1:", port)
    assert all(ENV[name].startswith("127.0.0.1:") for name in ENV if name.endswith("_PUBLISH"))
    assert not any("9091" in port for service in SERVICES.values() for port in service.get("ports", []))


def test_base_images_come_from_variables_with_public_defaults() -> None:
    for service in SERVICES.values():
        image = service["image"]
        assert image.startswith("localhost/fleetgate-") or re.match(r"\$\{\w+:-docker\.io/", image)
    for file in (ROOT / "docker").glob("*.Dockerfile"):
        lines = file.read_text().splitlines()
        assert all("${" in line for line in lines if line.startswith("FROM "))
        assert any(re.match(r"ARG \w+=docker\.io/", line) for line in lines)
    for name, value in ENV.items():
        if name.endswith("_IMAGE"):
            defaults = set(re.findall(rf"\${{{name}:-([^}}]+)}}", (ROOT / "compose.yaml").read_text()))
            assert defaults == {value}


def test_redis_keeps_an_append_only_file() -> None:
    assert SERVICES["redis"]["command"][:3] == ["redis-server", "--appendonly", "yes"]


def check(file: Path, **environment: str) -> None:
    """What `fleetgate check` says of `file` with these variables and no others; it has to be good."""
    fleetgate = str(Path(sys.executable).with_name("fleetgate"))
    checked = subprocess.run([fleetgate, "check", str(file)], env=environment, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_gateways_configuration_is_one() -> None:
    check(
        ROOT / "docker" / "gateway.yaml",
        FLEETGATE_NO_AUTH=ENV["FLEETGATE_NO_AUTH"],
        FLEETGATE_ADMIN__TOKEN="a-token",
    )


def test_the_configuration_of_the_kubernetes_example_is_one(tmp_path: Path) -> None:
    """As its container gets it: the file of the ConfigMap, and the admin token of the Secret."""
    objects = yaml.safe_load_all((ROOT / "docs" / "kubernetes" / "fleetgate.yaml").read_text())
    (text,) = [each["data"]["gateway.yaml"] for each in objects if each["kind"] == "ConfigMap"]
    file = tmp_path / "gateway.yaml"
    file.write_text(text)
    check(file, FLEETGATE_ADMIN__TOKEN="a-token")


def test_files_that_are_mounted_exist() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), source


def test_every_profile_is_on_the_deployment_page() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    assert all(f"`{name}`" in page for name in load_profiles())


@pytest.mark.parametrize("profile", GPU_PROFILES)
def test_a_gpu_node_gets_no_capabilities_and_no_new_privileges(profile: str) -> None:
    node = SERVICES[profile.replace("gpu-", "node-")]
    assert node["cap_drop"] == ["ALL"]
    assert node["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in node and node.get("user", "10001") != "root"


@pytest.mark.parametrize("file", sorted((ROOT / "docker").glob("*.Dockerfile")), ids=lambda file: file.name)
def test_no_image_runs_as_root(file: Path) -> None:
    """As a number: Kubernetes cannot see of a name that it is not root."""
    users = re.findall(r"^USER (\S+)$", file.read_text(), re.MULTILINE)
    assert users and users[-1] == "10001:10001"


def test_nothing_in_the_example_for_kubernetes_runs_as_root_or_can_become_it() -> None:
    documents = yaml.safe_load_all((ROOT / "docs" / "kubernetes" / "fleetgate.yaml").read_text())
    pods = [each["spec"]["template"]["spec"] for each in documents if each["kind"] in ("Deployment", "StatefulSet")]
    assert len(pods) == 2
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert "privileged" not in container["securityContext"]
