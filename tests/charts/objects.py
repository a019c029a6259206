"""What the tests look for in rendered objects."""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]


def one(objects: Sequence[Object], kind: str, name: str = "fleetgate") -> Object:
    """The object of that kind and name."""
    (found,) = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def pods(objects: Sequence[Object]) -> Iterator[tuple[str, Object]]:
    """The pods of all workloads, each with the name of what makes it."""
    for each in objects:
        spec, name = each.get("spec", {}), f"{each['kind']} {each['metadata']['name']}"
        if "template" in spec:
            yield name, spec["template"]
        elif "leaderWorkerTemplate" in spec:
            yield f"{name} head", spec["leaderWorkerTemplate"]["leaderTemplate"]
            yield f"{name} worker", spec["leaderWorkerTemplate"]["workerTemplate"]


def containers(pod: Object) -> list[Object]:
    """All containers of a pod template."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def selects(selector: Mapping[str, str], pod: Object) -> bool:
    """Whether the labels select the pod."""
    labels: dict[str, str] = pod["metadata"]["labels"]
    return selector.items() <= labels.items()


def gateway_config(objects: Sequence[Object]) -> str:
    """The file that gateways read."""
    text: str = one(objects, "ConfigMap")["data"]["gateway.yaml"]
    return text


def gateway_environment(objects: Sequence[Object]) -> dict[str, str]:
    """The variables of the gateway's container, with a secret in the place of each."""
    (container,) = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    given: dict[str, str] = {}
    for each in container["env"]:
        given[each["name"]] = each.get("value", "a-secret-of-some-length")
        if "$(" in given[each["name"]]:
            given[each["name"]] = given[each["name"]].replace("$(REDIS_PASSWORD)", given["REDIS_PASSWORD"])
    if "valueFrom" in next((e for e in container["env"] if e["name"] == "REDIS_URL"), {}):
        given["REDIS_URL"] = "redis://fleetgate:secret@redis.example:6379"
    return given


def check(config: str, environment: Mapping[str, str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """`fleetgate check` on a file with this text, with these variables and no others."""
    file = folder / "gateway.yaml"
    file.write_text(config)
    script = "from gateway.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", script, "check", str(file)],
        env={**environment, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )


def parsed(text: str) -> Any:
    """The YAML in text."""
    return yaml.safe_load(text)
