"""Downloads from a local server that speaks the hub's API."""

import itertools
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.workers.hub_stand_in import COMMIT, Hub, serve
from workers.cli import app
from workers.download.fetch import check_space
from workers.download.source import Found
from workers.errors import DownloadFailed

ULTRA = "nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B"
RED_HAT = "RedHatAI/NVIDIA-Nemotron-3-Ultra-550B-A55B"


def shard(**sizes: int) -> bytes:
    offset, header = 0, {}
    for name, size in sizes.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(offset)


def checkpoint() -> dict[str, bytes]:
    weights = {"x": "model-00001-of-00002.safetensors", "y": "model-00002-of-00002.safetensors"}
    index = {"metadata": {"total_size": 3_000_000}, "weight_map": weights}
    return {
        "config.json": b"{}",
        "model.safetensors.index.json": json.dumps(index).encode(),
        "model-00001-of-00002.safetensors": shard(x=1_000_000),
        "model-00002-of-00002.safetensors": shard(y=2_000_000),
        "pytorch_model.bin": bytes(50_000),  # not loaded by vLLM, not fetched
    }


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve(Hub({f"{ULTRA}-NVFP4": checkpoint(), f"{ULTRA}-BF16": checkpoint()})) as running:
        yield running


def download(hub: Hub, folder: Path, profile: str, *more: str) -> Result:
    command = ["download", profile, "--model-dir", str(folder / "model"), *more]
    return CliRunner().invoke(app, command, env={"HF_ENDPOINT": hub.url, "HF_TOKEN": None})


def argv(profile: str, folder: Path) -> str:
    return CliRunner().invoke(app, ["argv", profile, "--model-dir", str(folder / "model")]).stdout


def test_a_checkpoint_is_fetched_proven_and_noted(hub: Hub, tmp_path: Path) -> None:
    run = download(hub, tmp_path, "nemotron-3-ultra-8xh100-nvfp4")
    assert run.exit_code == 0, run.stderr
    assert "complete by its index" in run.stderr
    assert (tmp_path / "model" / "model-00002-of-00002.safetensors").stat().st_size > 2_000_000
    assert not (tmp_path / "model" / "pytorch_model.bin").exists()
    marker = json.loads((tmp_path / "model" / "fleetgate-checkpoint.json").read_text())
    assert marker == {"repository": f"{ULTRA}-NVFP4", "revision": COMMIT, "quantization": None}
    before = hub.served_bytes()
    assert download(hub, tmp_path, "nemotron-3-ultra-8xh100-nvfp4").exit_code == 0
    assert hub.served_bytes() == before, "what is there is not fetched again"


def test_another_repositorys_checkpoint_is_not_overwritten(hub: Hub, tmp_path: Path) -> None:
    assert download(hub, tmp_path, "nemotron-3-ultra-8xh100-nvfp4").exit_code == 0
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "model").iterdir()}
    run = download(hub, tmp_path, "nemotron-3-ultra-8xh200-fp8")
    assert run.exit_code != 0 and f"holds {ULTRA}-NVFP4, not {ULTRA}-BF16" in run.stderr
    assert {file.name: file.stat().st_mtime_ns for file in (tmp_path / "model").iterdir()} == before


def test_a_missing_fp8_repository_is_replaced_and_told(hub: Hub, tmp_path: Path) -> None:
    run = download(hub, tmp_path, "nemotron-3-ultra-8xh200-fp8")
    assert run.exit_code == 0, run.stderr
    assert f"{RED_HAT}-FP8-block does not exist" in run.stderr
    assert f"{RED_HAT}-FP8-dynamic does not exist" in run.stderr
    assert f"taking {ULTRA}-BF16 instead: vLLM quantises it to fp8 while loading" in run.stderr
    shown = argv("nemotron-3-ultra-8xh200-fp8", tmp_path)
    assert f"vllm serve {tmp_path / 'model'} " in shown
    assert "--quantization fp8" in shown


@pytest.mark.parametrize("name", ["FP8-block", "FP8-dynamic"])
def test_an_existing_fp8_repository_is_taken_before_bf16(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.repositories[f"{RED_HAT}-{name}"] = checkpoint()
    assert download(hub, tmp_path, "nemotron-3-ultra-8xh200-fp8").exit_code == 0
    shown = argv("nemotron-3-ultra-8xh200-fp8", tmp_path)
    assert "--quantization" not in shown


def test_a_broken_connection_is_taken_up_where_it_broke(hub: Hub, tmp_path: Path) -> None:
    # The library keeps what it got in pieces of 10 MiB.
    files = checkpoint() | {"model-00002-of-00002.safetensors": shard(y=24_000_000)}
    files["model.safetensors.index.json"] = files["model.safetensors.index.json"].replace(b"3000000", b"25000000")
    hub.repositories[f"{ULTRA}-NVFP4"] = files
    hub.breaks_left, hub.break_after = 1, 15_000_000
    run = download(hub, tmp_path, "nemotron-3-ultra-8xh100-nvfp4", "--workers", "1")
    assert run.exit_code == 0, run.stderr
    ranges = [r for method, path, r in hub.asked if method == "GET" and "/resolve/" in path and r]
    assert any(r.startswith("bytes=10485760-") for r in ranges), "the second try asks for the rest only"


@pytest.mark.parametrize(
    ("profile", "says"),
    [
        ("nemotron-3-super-1xh100-nvfp4", "none of the checkpoints"),
        ("tiny-cpu", "fleetgate-worker tiny-model"),
        ("nemotron-3-ultra-4xh200-nvfp4", "is gated"),
    ],
)
def test_what_cannot_be_fetched_is_told(hub: Hub, tmp_path: Path, profile: str, says: str) -> None:
    if says == "is gated":
        hub.gated.add(f"{ULTRA}-NVFP4")
    run = download(hub, tmp_path, profile)
    assert run.exit_code == 2
    assert says in run.stderr
    assert "Traceback" not in run.stderr


def test_a_hub_that_is_not_there_is_told(tmp_path: Path) -> None:
    """Whatever HTTP client the library has: version 2 has another one."""
    command = ["download", "nemotron-3-ultra-8xh100-nvfp4", "--model-dir", str(tmp_path / "model"), "--tries", "1"]
    run = CliRunner().invoke(app, command, env={"HF_ENDPOINT": "http://127.0.0.1:1", "HF_TOKEN": None})
    assert run.exit_code == 2, run.output
    assert "the hub does not answer a request for nvidia" in run.stderr
    assert isinstance(run.exception, SystemExit)


def test_a_download_outlives_connections_that_end_without_an_answer(hub: Hub, tmp_path: Path) -> None:
    """As a proxy ends them that restarts: the library gives up at the first one, the next attempt goes on."""
    hub.hangups_left = 1
    run = download(hub, tmp_path, "nemotron-3-ultra-8xh100-nvfp4", "--workers", "1")
    assert run.exit_code == 0, run.stderr
    assert "attempt 1 broke off" in run.stderr and hub.hangups_left == 0


def sharded(count: int, size: int) -> dict[str, bytes]:
    names = {f"t{number}": f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)}
    index = {"metadata": {"total_size": count * size}, "weight_map": names}
    shards = {name: shard(**{tensor: size}) for tensor, name in names.items()}
    return {"config.json": b"{}", "model.safetensors.index.json": json.dumps(index).encode(), **shards}


KINDS = ("hangup", "reset", "cut", "503", "429", "page", "502", "500")


def test_a_download_survives_sixty_breaks(hub: Hub, tmp_path: Path) -> None:
    """Of every kind, in listings, heads and bodies: what broke off is taken up again as long as files come."""
    hub.repositories[f"{ULTRA}-NVFP4"] = sharded(150, 5000)
    breaks = itertools.islice(itertools.cycle(KINDS), 60)
    hub.faults = itertools.chain.from_iterable((kind, "", "", "", "", "") for kind in breaks)
    run = download(hub, tmp_path, "nemotron-3-ultra-8xh100-nvfp4", "--workers", "32", "--verify")
    assert run.exit_code == 0, run.stderr
    assert hub.broken == 60
    assert "verified by SHA-256: 150 files" in run.stderr


def test_a_wrong_revision_is_told(hub: Hub, tmp_path: Path) -> None:
    run = download(hub, tmp_path, "nemotron-3-ultra-8xh100-nvfp4", "--revision", "v9")
    assert run.exit_code == 2
    assert "has no revision v9" in run.stderr


def test_a_hub_whose_files_do_not_match_its_index_is_not_believed(hub: Hub, tmp_path: Path) -> None:
    hub.repositories[f"{ULTRA}-NVFP4"]["model-00001-of-00002.safetensors"] = shard(x=999_999)
    run = download(hub, tmp_path, "nemotron-3-ultra-8xh100-nvfp4")
    assert run.exit_code == 2
    assert "the index says 3,000,000" in run.stderr
    assert not (tmp_path / "model" / "fleetgate-checkpoint.json").exists()


def test_the_disk_is_asked_first(tmp_path: Path) -> None:
    needs_too_much = Found("a/b", {"x": 10**18})
    with pytest.raises(DownloadFailed, match="attach a larger disk"):
        check_space(needs_too_much, tmp_path / "not" / "there")
    check_space(Found("a/b", {"x": 1000}), tmp_path)
