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


def test_each_node_registers_under_a_name_of_its_own() -> None:
    """So that a drain and a spot notice reach the gateways, and nodes of two profiles at once are two."""
    for profile in ("fake", "cpu", *GPU_PROFILES):
        (node,) = active(profile) & NODES
        variables = SERVICES[node]["environment"]
        assert SERVICES[node]["command"][0] == "launch"
        assert variables["FLEETGATE_WORKER_REDIS"] == "redis://redis:6379"
        assert variables["FLEETGATE_WORKER_ADVERTISE"] == f"http://{node}:8000"
        assert variables["FLEETGATE_WORKER_NODE_ID"] == node
        assert SERVICES[node]["networks"] == ["fleet"], "no alias that another node has too"
    assert active("observe") - ALWAYS == {"prometheus", "grafana"}
    assert active("ha") - ALWAYS == {"gateway-2", "haproxy"}


def test_gateways_believe_what_nodes_sign() -> None:
    file = yaml.safe_load((ROOT / "docker" / "gateway" / "gateway.yaml").read_text())
    assert file["discovery"] == {"registrations": {"secret": {"env": "WORKER_SECRET"}}} and "nodes" not in file
    secrets = {SERVICES[name]["environment"]["FLEETGATE_WORKER_SECRET"] for name in NODES}
    assert secrets == {SERVICES["gateway"]["environment"]["WORKER_SECRET"]}
    assert ENV["FLEETGATE_WORKER_SECRET"], "signed by default"


@pytest.mark.parametrize("name", sorted(NODES - {"cpu"}))
def test_the_launcher_takes_what_a_node_is_started_with(name: str) -> None:
    """Up to the point where it would start something; the CPU's node is set up first, which takes minutes."""
    service = SERVICES[name]
    words = [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", word) for word in service["command"]]
    variables = {key: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) for key, value in service["environment"].items()}
    script = "import sys; from workers.cli import main; sys.argv[0] = 'fleetgate-worker'; main()"
    command = [sys.executable, "-c", script, *words, "--price=-1"]
    said = subprocess.run(
        command, env={**variables, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert said.returncode == 2 and "--price" in said.stderr and "No such option" not in said.stderr


def test_what_is_edited_is_mounted_as_a_folder() -> None:
    """Editors replace a file, and a container with the file itself goes on seeing the old one."""
    assert "./docker/gateway:/etc/fleetgate:ro" in SERVICES["gateway"]["volumes"]
    for name in ("gateway", "gateway-2", "prometheus"):
        for volume in SERVICES[name]["volumes"]:
            source = volume.split(":")[0]
            assert not source.startswith("./") or (ROOT / source).is_dir(), volume


def test_prometheus_asks_every_gateway_and_every_node() -> None:
    config = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yml").read_text())
    jobs = {job["job_name"]: job["dns_sd_configs"][0] for job in config["scrape_configs"]}
    assert set(jobs["gateway"]["names"]) == {name for name in SERVICES if name.startswith("gateway")}
    assert set(jobs["node"]["names"]) == NODES
    assert set(jobs["gpu"]["names"]) == {name for name in NODES if name.startswith("node-")}
    assert [jobs[name]["port"] for name in ("gateway", "node", "gpu")] == [9091, 8000, 9109]
    for name in jobs["gpu"]["names"]:
        assert SERVICES[name]["environment"]["FLEETGATE_WORKER_METRICS"] == "0.0.0.0:9109"
    (rules,) = config["rule_files"]
    assert "./charts/fleetgate/files:/etc/fleetgate-alerts:ro" in SERVICES["prometheus"]["volumes"]
    assert (ROOT / "charts" / "fleetgate" / "files" / Path(rules).name).exists()


def test_nobody_logs_in_to_grafana() -> None:
    variables = SERVICES["grafana"]["environment"]
    assert variables["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert variables["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"
    assert variables["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert not any("PASSWORD" in name for name in variables)


@pytest.mark.parametrize("name", [n for n in SERVICES if not n.startswith(("node-", "dcgm-"))])
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


def test_the_gateways_configuration_is_one() -> None:
    """With the variables of its service and no others."""
    fleetgate = str(Path(sys.executable).with_name("fleetgate"))
    given = {
        key: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) for key, value in SERVICES["gateway"]["environment"].items()
    }
    command = [fleetgate, "check", str(ROOT / "docker" / "gateway" / "gateway.yaml")]
    checked = subprocess.run(
        command, env={**given, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


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
