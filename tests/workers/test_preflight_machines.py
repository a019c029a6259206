"""Preflight on machines that differ from a whole, idle one of the wanted kind: shared ones, other networks, other
drivers, drivers that do not tell everything. Each is a capture with one thing changed.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from workers.cli import app
from workers.preflight.capture import Capture, Gpus, Output, SeenGpu, read_capture
from workers.preflight.check import check_machine
from workers.preflight.finding import Finding
from workers.preflight.gpu_checks import is_kind
from workers.preflight.nvml import ask_nvml
from workers.preflight.smi import read_gpus, read_visible
from workers.profile import Profile
from workers.profiles.load import find_profile
from workers.vllm_facts import image_cuda, image_driver, image_version, lacks_of

CAPTURES = Path(__file__).parent / "captures"
HALF = "nemotron-3-ultra-4xh200-nvfp4"
WHOLE = "nemotron-3-ultra-8xh200-fp8"
H100 = "nemotron-3-ultra-8xh100-nvfp4"
PAIR = "nemotron-3-ultra-16xh100-fp8"
GIB = 2**30


def machine(name: str, **changes: Any) -> Capture:
    return read_capture(CAPTURES / f"{name}.json").model_copy(update=changes)


def judge(profile: Profile | str, capture: Capture, joined: bool = False) -> dict[str, Finding]:
    chosen = find_profile(profile) if isinstance(profile, str) else profile
    return {f.check: f for f in check_machine(chosen, capture, None, joined)}


def with_output(capture: Capture, **outputs: Output) -> Capture:
    return capture.model_copy(update={"commands": dict(capture.commands) | outputs})


def said(text: str, code: int | None = 0) -> Output:
    return Output(argv=("x",), exit_code=code, stdout=text)


# --- which GPUs -------------------------------------------------------------------------------------------


def shared(busy: set[int], names: list[str] | None = None, visible: tuple[int, ...] | None = None) -> Capture:
    """Eight H200, some of them holding 70 GiB."""
    kinds = names or ["NVIDIA H200"] * 8
    seen = tuple(
        SeenGpu(name=kinds[index], memory=140 * GIB, memory_used=70 * GIB if index in busy else 0) for index in range(8)
    )
    capture = machine("good-8xh200", gpus=Gpus(source="nvml", driver="580.95.05", cuda="13.0", gpus=seen))
    capture = with_output(capture, vllm=said("0.32.0\n"))
    return capture.model_copy(update={"host": capture.host.model_copy(update={"visible_gpus": visible})})


def test_half_a_machine_does_not_mind_its_busy_neighbour() -> None:
    found = judge(HALF, shared({4, 5, 6, 7}))
    assert [f for f in found.values() if f.level in ("fail", "warn")] == []
    assert found["NVLink"].needed == "NV18 between all 6 pairs"


def test_where_the_first_half_is_busy_the_free_one_is_named() -> None:
    found = judge(HALF, shared({0, 1}))["GPUs idle"]
    assert (found.level, found.seen) == ("fail", "GPU0: 75 GB, GPU1: 75 GB")
    assert "CUDA_VISIBLE_DEVICES=2,3,4,5" in found.fix
    assert judge(HALF, shared({0, 1}, visible=(2, 3, 4, 5)))["GPUs idle"].level == "ok"
    by_profile = find_profile(HALF).model_copy(update={"environment": {"CUDA_VISIBLE_DEVICES": "4,5,6,7"}})
    assert judge(by_profile, shared({0, 1}))["GPUs idle"].level == "ok"


def test_a_whole_machine_minds_every_gpu() -> None:
    found = judge(WHOLE, shared({7}))["GPUs idle"]
    assert found.level == "fail" and "another process" in found.fix


def test_too_few_visible_gpus_are_told_as_such() -> None:
    found = judge(HALF, shared(set(), visible=(6, 7)))["GPUs"]
    assert (found.level, found.seen) == ("fail", "2 of 8 are visible")
    assert "CUDA_VISIBLE_DEVICES" in found.fix
    assert judge(HALF, shared(set(), visible=()))["GPUs"].level == "fail"
    assert judge(HALF, shared(set(), visible=(97, 98, 99, 100)))["GPUs"].level == "fail"


def test_gpus_that_are_not_taken_may_be_of_another_kind() -> None:
    mixed = ["NVIDIA H200"] * 4 + ["NVIDIA A10"] * 4
    assert judge(HALF, shared(set(), mixed))["GPU kind"].level == "ok"
    assert judge(WHOLE, shared(set(), mixed))["GPU kind"].level == "fail"


@pytest.mark.parametrize(
    ("setting", "indices"),
    [
        (None, None),
        ("4,5, 6,7", (4, 5, 6, 7)),
        ("", ()),
        ("-1", ()),
        ("0,1,-1,2", (0, 1)),
        ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", None),
        ("MIG-8932f937", None),
        ("\u0664", ()),
    ],
)
def test_visible_devices_are_read_as_cuda_reads_them(setting: str | None, indices: tuple[int, ...] | None) -> None:
    assert read_visible(setting) == indices


@pytest.mark.parametrize(
    ("gpu", "name", "fits"),
    [
        ("h200", "NVIDIA H200", True),
        ("h200", "NVIDIA GH200 480GB", False),
        ("h200", "NVIDIA H200 NVL", False),
        ("h200", "NVIDIA H20", False),
        ("h100", "NVIDIA H100 80GB HBM3", True),
        ("h100", "NVIDIA H100 PCIe", False),
        ("a100", "NVIDIA A100-SXM4-80GB", True),
        ("a100", "NVIDIA A100-PCIE-40GB", False),
        ("b200", "NVIDIA B200", True),
        ("b200", "NVIDIA GB200", False),
        ("gb200", "NVIDIA GB200", True),
        ("b300", "NVIDIA B300 SXM6 AC", True),
    ],
)
def test_kinds_are_matched_as_whole_words(gpu: str, name: str, fits: bool) -> None:
    from workers.catalog.facts import find_gpu

    assert is_kind(find_gpu(gpu), name) is fits


# --- what a driver does not tell --------------------------------------------------------------------------

SMI = "| NVIDIA-SMI 580.95.05   Driver Version: 580.95.05   CUDA Version: 13.0 |"


@pytest.mark.parametrize(
    "cell", ["[N/A]", "N/A", "[Not Supported]", "[Unknown Error]", "[Insufficient Permissions]", ""]
)
def test_memory_that_is_not_told_is_a_warning(cell: str) -> None:
    rows = f"NVIDIA H200, {cell}, {cell}, 580.95.05, [N/A]\n" * 8
    seen = read_gpus(said(rows), said(SMI))
    assert seen is not None and seen.gpus[0].memory is None
    found = judge(WHOLE, with_output(machine("good-8xh200"), gpus=said(rows), smi=said(SMI)))
    assert (found["GPU memory"].level, found["GPUs idle"].level) == ("warn", "warn")


def test_a_driver_that_tells_no_cuda_is_still_a_driver() -> None:
    """As in a container without the compute capability: `CUDA Version: N/A`."""
    smi = said(SMI.replace("13.0 ", "N/A "))
    found = judge(WHOLE, with_output(machine("good-8xh200"), smi=smi))
    assert (found["CUDA"].level, found["CUDA"].seen, found["GPUs"].level) == ("fail", "not told", "ok")


def test_a_memory_in_another_spelling_is_read() -> None:
    seen = read_gpus(said("NVIDIA H200, 143771.0, 0, 580.95.05, Disabled\n"), said(SMI))
    assert seen is not None and seen.gpus[0].memory == 143771 * 2**20


def test_nvml_without_memory_or_mig_still_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    class NotSupported(Exception):
        pass

    def refuse(*_: object) -> None:
        raise NotSupported

    nvml = SimpleNamespace(
        NVMLError=NotSupported,
        NVMLError_NotSupported=NotSupported,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlSystemGetCudaDriverVersion_v2=lambda: 13000,
        nvmlSystemGetDriverVersion=lambda: "580.95.05",
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda _: "NVIDIA GB10",
        nvmlDeviceGetMemoryInfo=refuse,
        nvmlDeviceGetMigMode=refuse,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    seen = ask_nvml()
    assert seen is not None and seen.cuda == "13.0"
    assert seen.gpus == (SeenGpu(name="NVIDIA GB10", memory=None, memory_used=None),)


# --- driver and version -----------------------------------------------------------------------------------


def test_an_image_of_cuda_13_wants_driver_580_or_its_switch() -> None:
    old = machine("bad-driver-550-8xh100")
    found = judge(H100, old)
    assert found["driver"].level == "fail" and found["driver"].needed.startswith("580")
    assert "VLLM_ENABLE_CUDA_COMPATIBILITY" in found["driver"].fix
    switched = find_profile(H100).model_copy(update={"environment": {"VLLM_ENABLE_CUDA_COMPATIBILITY": "1"}})
    found = judge(switched, old)
    assert (found["driver"].level, found["CUDA"].level) == ("ok", "ok")
    older = find_profile(H100).model_copy(update={"vllm_image": "vllm/vllm-openai:v0.22.0-cu129"})
    found = judge(older, with_output(old, vllm=said("", None)))
    assert (found["driver"].level, found["CUDA"].level) == ("ok", "ok")


@pytest.mark.parametrize(
    ("image", "version", "cuda", "driver"),
    [
        ("vllm/vllm-openai:v0.32.0", "0.32.0", "13.0", "580"),
        ("docker.io:5000/vllm/vllm-openai:v0.22.0", "0.22.0", "13.0", "580"),
        ("vllm/vllm-openai:v0.22.0-cu129", "0.22.0", "12.9", "525.60"),
        ("vllm:0.22.0+cu129", "0.22.0", "12.9", "525.60"),
        ("vllm/vllm-openai:latest", None, "13.0", "580"),
        ("vllm/vllm-openai@sha256:0123", None, "13.0", "580"),
    ],
)
def test_images_are_read(image: str, version: str | None, cuda: str, driver: str) -> None:
    assert (image_version(image), image_cuda(image), image_driver(image)) == (version, cuda, driver)


def test_what_a_version_lacks_is_printed() -> None:
    old = " ".join(lacks_of("0.22.0", find_profile("nemotron-3-ultra-8xh200-nvfp4")))
    assert "reasoning_tokens" in old and "44993" in old and "44489" not in old
    assert "44489" in " ".join(lacks_of("0.22.0", find_profile(WHOLE)))
    assert list(lacks_of("0.32.0", find_profile(WHOLE))) == []
    capture = str(CAPTURES / "good-8xh200.json")
    run = CliRunner().invoke(app, ["preflight", WHOLE, "--from", capture])
    assert "vllm:0.22.0 lacks: reasoning_tokens in usage" in run.stdout
    document = json.loads(CliRunner().invoke(app, ["preflight", WHOLE, "--from", capture, "--json"]).stdout)
    assert document["vllm"] == "vllm:0.22.0" and len(document["lacks"]) >= 5


def test_a_program_that_failed_has_no_version() -> None:
    broken = with_output(machine("good-8xh200"), vllm=said("no distribution 9.9.9", 1))
    assert judge(WHOLE, broken)["vLLM"].seen == "not installed here"


# --- several machines -------------------------------------------------------------------------------------

EFA = """provider: efa
    fabric: efa
    domain: rdmap79s0-rdm
    version: 121.0
    type: FI_EP_RDM
    protocol: FI_PROTO_EFA
provider: efa
    fabric: efa
    domain: rdmap79s0-dgrm
    type: FI_EP_DGRAM
provider: efa
    fabric: efa
    domain: rdmap80s0-rdm
"""


def head(**outputs: Output) -> Capture:
    return with_output(machine("good-16xh100-head"), **outputs)


def test_roce_counts_as_interconnect() -> None:
    text = head().output("infiniband").stdout.replace("Link layer: InfiniBand", "Link layer: Ethernet")
    found = judge(PAIR, head(infiniband=said(text)))["interconnect"]
    assert (found.level, found.seen) == ("ok", "8 active RoCE ports, best 400 Gbit/s")


def test_efa_counts_as_interconnect() -> None:
    found = judge(PAIR, head(efa=said(EFA), infiniband=said("", None)))["interconnect"]
    assert (found.level, found.seen) == ("ok", "2 EFA devices")
    none = judge(PAIR, head(efa=said("fi_getinfo: -61", 61), infiniband=said("", None)))["interconnect"]
    assert none.level == "warn"


def test_a_fast_network_that_nccl_is_kept_off_fails() -> None:
    closed = find_profile(PAIR).model_copy(update={"environment": {"NCCL_IB_DISABLE": "1"}})
    assert judge(closed, head())["interconnect"].level == "fail"


@pytest.mark.parametrize(
    ("output", "joined", "level"),
    [
        (said("", None), False, "fail"),  # the image has no Ray
        (said("could not find a running Ray instance", 1), False, "skip"),  # the launcher starts it
        (said("could not find a running Ray instance", 1), True, "fail"),
        (said("Total Usage:\n 0.0/8.0 GPU\n"), True, "fail"),
        (said("Total Usage:\n 0.0/8.0 GPU\n"), False, "fail"),  # another cluster is in the way
        (said("Total Usage:\n 0.0/16.0 GPU\n"), True, "ok"),
        (said("Total Usage:\n 0.0/16.0 GPU\n"), False, "ok"),
        (said("Total Usage:\n"), True, "fail"),
    ],
)
def test_ray_up_and_ray_down_are_told_apart(output: Output, joined: bool, level: str) -> None:
    assert judge(PAIR, head(ray=output), joined)["Ray"].level == level


def test_rays_own_port_is_no_fault_while_ray_runs() -> None:
    def ports(capture: Capture, *taken: int) -> str:
        host = capture.host.model_copy(update={"ports_taken": taken})
        return judge(PAIR, capture.model_copy(update={"host": host}))["ports"].seen

    assert ports(head(), 6379) == "free"
    assert ports(head(), 6379, 8000) == "taken: 8000"
    assert ports(head(ray=said("", 1)), 6379) == "taken: 6379"


def test_machines_that_vllm_joins_need_no_ray() -> None:
    found = judge("nemotron-3-ultra-16xh100-fp8-nnodes", head(ray=said("", None)))
    assert "Ray" not in found and found["interconnect"].level == "ok"


# --- offloading, disks and files --------------------------------------------------------------------------


def test_offloaded_keys_and_values_count_in_ram_and_shared_memory() -> None:
    capture = machine("good-8xh200")
    small = capture.host.model_copy(update={"shared_memory": 100 * GIB, "memory": 900 * 10**9})
    found = judge("nemotron-3-ultra-8xh200-nvfp4-offload", capture.model_copy(update={"host": small}))
    assert (found["shared memory"].level, found["shared memory"].needed) == ("fail", "576 GiB")
    assert (found["host memory"].level, found["host memory"].needed) == ("warn", "1,356 GB")


def test_a_disk_for_the_first_checkpoint_but_not_for_the_last_resort_warns() -> None:
    def disk(free: int) -> str:
        capture = machine("good-8xh200")
        host = capture.host.model_copy(update={"disk_free": free})
        return judge(WHOLE, capture.model_copy(update={"host": host}))["disk"].level

    assert [disk(n * 10**9) for n in (500, 700, 2000)] == ["fail", "warn", "ok"]


@pytest.mark.parametrize(
    "args",
    [
        ["preflight", "tiny-cpu", "--capture", "/no/such/folder/x.json"],
        ["preflight", "tiny-cpu", "--capture", "/"],
        ["preflight", "tiny-cpu", "--from", "/no/such/file.json"],
        ["preflight", "tiny-cpu", "--from", "/"],
        ["flags", "tiny-cpu", "--record", "/no/such/folder/x.json"],
        ["flags", "tiny-cpu", "--record", "/"],
        ["plan", "tiny-cpu", "--plot", "/no/such/folder/x.png"],
        ["plan", "tiny-cpu", "--plot", "/tmp/x.nonsense"],
        ["plan", "--profiles", "/no/such/folder"],
    ],
)
def test_paths_that_cannot_be_used_are_told(args: list[str]) -> None:
    run = CliRunner().invoke(app, args)
    assert run.exit_code == 2, run.output
    assert "Traceback" not in run.output
    assert isinstance(run.exception, SystemExit)
    assert any(word in run.stderr for word in ("cannot", "is not there"))


def test_a_capture_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\x00")
    run = CliRunner().invoke(app, ["preflight", "tiny-cpu", "--from", str(tmp_path / "x.json")])
    assert run.exit_code == 2 and "cannot read" in run.stderr
