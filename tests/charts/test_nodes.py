"""The chart's pools of nodes: started as the launcher takes it, drained, registered, and with their checkpoint."""

from itertools import product
from typing import Any

import pytest

from tests.charts.helm import CHART, MISSING, documents, found_helm, helm
from tests.charts.objects import gateway_config, one, parsed, pods
from workers.launch.machines import has_ray, machine_of, role_of
from workers.profiles.load import find_profile

pytestmark = pytest.mark.skipif(found_helm() is None, reason=MISSING)
POOL = ("nodes.a.profile=nemotron-3-ultra-8xh200-fp8", "nodes.a.model=nemotron-3-ultra")


def launched(pod: dict[str, Any], role: str) -> None:
    """The launcher takes the arguments of the pod's container."""
    arguments = pod["spec"]["containers"][0]["args"]
    profile = find_profile(arguments[1], ())
    options = dict(word.removeprefix("--").partition("=")[::2] for word in arguments[2:])
    assert role_of(profile, role, options.get("head")) == role
    rank = {"$(LWS_WORKER_INDEX)": 1}.get(options.get("rank", ""))
    machine_of(profile, role_of(profile, role, options.get("head")), options.get("head"), options.get("address"), rank)


def test_the_launcher_takes_what_a_node_of_one_machine_is_started_with() -> None:
    launched(one(documents("fleet"), "StatefulSet", "fleetgate-nemotron")["spec"]["template"], "single")


@pytest.mark.parametrize(
    ("join", "profile"),
    [("rank", "nemotron-3-ultra-16xh100-fp8-nnodes"), ("ray", "nemotron-3-ultra-16xh100-fp8")],
)
def test_the_launcher_takes_what_a_node_of_two_machines_is_started_with(join: str, profile: str) -> None:
    settings = (f"nodes.nemotron.join={join}", f"nodes.nemotron.profile={profile}")
    both = dict(pods(documents("two-machines", *settings)))
    launched(both["LeaderWorkerSet fleetgate-nemotron head"], "head")
    launched(both["LeaderWorkerSet fleetgate-nemotron worker"], "worker")
    assert has_ray(find_profile(profile, ())) == (join == "ray")


def test_a_node_registers_by_the_name_that_its_service_gives_it() -> None:
    objects = documents("fleet")
    node = one(objects, "StatefulSet", "fleetgate-nemotron")["spec"]
    variables = {each["name"]: each.get("value") for each in node["template"]["spec"]["containers"][0]["env"]}
    assert variables["FLEETGATE_WORKER_ADVERTISE"] == f"http://$(POD_NAME).{node['serviceName']}:8000"
    service = one(objects, "Service", node["serviceName"])["spec"]
    assert service["clusterIP"] == "None" and service["publishNotReadyAddresses"] is True
    assert variables["FLEETGATE_WORKER_REDIS"] == "redis://fleetgate-worker:$(REDIS_PASSWORD)@fleetgate-valkey:6379"
    assert parsed(gateway_config(objects))["discovery"]["registrations"] == {"secret": {"env": "WORKER_SECRET"}}


@pytest.mark.parametrize("storage", ["claim", "perNode", "hostPath", "existing"])
def test_the_checkpoint_is_there_before_a_node_starts(storage: str) -> None:
    objects = documents(None, *POOL, f"nodes.a.models.storage={storage}", "nodes.a.models.claimName=mine")
    spec = one(objects, "StatefulSet", "fleetgate-a")["spec"]
    pod = spec["template"]["spec"]
    jobs = [each for each in objects if each["kind"] == "Job"]
    claims = [each for each in objects if each["kind"] == "PersistentVolumeClaim"]
    assert (len(jobs), len(claims)) == ((1, 1) if storage == "claim" else (0, 0))
    assert ("volumeClaimTemplates" in spec) == (storage == "perNode")
    mounted = {each["name"] for each in pod["volumes"]} | {
        each["metadata"]["name"] for each in spec.get("volumeClaimTemplates", [])
    }
    assert {each["name"] for each in pod["containers"][0]["volumeMounts"]} == mounted
    waits = str(pod.get("initContainers", ""))
    assert ("until test -f" in waits) == (storage == "claim")
    assert ("fleetgate-worker download" in waits) == (storage in ("perNode", "hostPath"))


def test_another_image_is_another_job() -> None:
    """A Job's template cannot be changed: helm upgrade would fail."""

    def name(*settings: str) -> str:
        found: str = next(each for each in documents(None, *POOL, *settings) if each["kind"] == "Job")["metadata"][
            "name"
        ]
        return found

    assert name() == name("nodes.a.replicas=3")
    assert name("nodes.a.image.tag=v2") != name() != name("nodes.a.models.from=s3://b/p")


@pytest.mark.parametrize(("kind", "is_scaled"), [*product(["StatefulSet", "LeaderWorkerSet"], [True, False])])
def test_an_upgrade_does_not_undo_what_was_scaled(kind: str, is_scaled: bool) -> None:
    settings = (f"nodes.a.kind={kind}", f"nodes.a.autoscaling.enabled={str(is_scaled).lower()}")
    assert ("replicas" in one(documents(None, *POOL, *settings), kind, "fleetgate-a")["spec"]) is not is_scaled


def test_several_pools_do_not_collide() -> None:
    objects = documents(None, *POOL, "nodes.b.profile=nemotron-3-ultra-8xh100-nvfp4", "nodes.b.drainSeconds=5")
    names = [(each["kind"], each["metadata"]["name"]) for each in objects]
    assert len(names) == len(set(names))
    spent = [one(objects, "StatefulSet", f"fleetgate-{pool}")["spec"]["template"]["spec"] for pool in "ab"]
    assert [each["terminationGracePeriodSeconds"] for each in spent] == [660, 65]


def test_two_releases_do_not_collide() -> None:
    other = helm("template", "second", str(CHART), "--namespace", "fleetgate", *("--set", POOL[0])).stdout
    assert "name: second-fleetgate\n" in other and "name: fleetgate\n" not in other.replace("/name: fleetgate", "")


def test_a_leader_worker_set_has_fields_that_its_api_has() -> None:
    """As api/leaderworkerset/v1 of kubernetes-sigs/lws names them: no package has its schema."""
    spec = one(documents("two-machines"), "LeaderWorkerSet", "fleetgate-nemotron")["spec"]
    assert spec.keys() <= {"replicas", "leaderWorkerTemplate", "rolloutStrategy", "startupPolicy", "networkConfig"}
    template = spec["leaderWorkerTemplate"]
    assert template.keys() == {"leaderTemplate", "workerTemplate", "size", "restartPolicy"}
    assert (template["size"], template["restartPolicy"]) == (2, "RecreateGroupOnPodRestart")
    assert spec["rolloutStrategy"].keys() == {"type", "rollingUpdateConfiguration"}
    assert spec["rolloutStrategy"]["rollingUpdateConfiguration"] == {"maxUnavailable": 1, "maxSurge": 0}


def test_the_second_machine_stays_while_the_first_drains() -> None:
    both = dict(pods(documents("two-machines")))
    head, worker = (both[f"LeaderWorkerSet fleetgate-nemotron {role}"]["spec"] for role in ("head", "worker"))
    assert worker["terminationGracePeriodSeconds"] == head["terminationGracePeriodSeconds"] == 660
    waits = worker["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert "LWS_LEADER_ADDRESS" in waits[2]
    compile(waits[2], "preStop", "exec")
    assert "lifecycle" not in head["containers"][0], "the launcher drains at SIGTERM"


def test_a_node_has_the_time_of_its_drain() -> None:
    settings = ("nodes.a.drainSeconds=60", "nodes.a.stopSeconds=20")
    spec = one(documents(None, *POOL, *settings), "StatefulSet", "fleetgate-a")["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] == 110
    assert {"--drain-seconds=60", "--stop-seconds=20"} <= set(spec["containers"][0]["args"])
