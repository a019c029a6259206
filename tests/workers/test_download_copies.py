"""Copies of a checkpoint: from a folder, a bucket and an rsync server, proven and verified as a download is."""

import hashlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.workers.hub_stand_in import COMMIT, Hub, serve
from tests.workers.s3_stand_in import Buckets, serve_s3
from tests.workers.test_download import ULTRA, checkpoint, download, sharded
from workers.cli import app
from workers.download.hashes import MANIFEST, read_manifest
from workers.download.rsync import rsync_source
from workers.download.s3 import s3_source
from workers.errors import ConfigError

PROFILE = "nemotron-3-ultra-8xh100-nvfp4"
MARKER = "fleetgate-checkpoint.json"
NOTE = json.dumps({"repository": f"{ULTRA}-NVFP4", "revision": COMMIT, "quantization": None}).encode()
S3 = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "eu-west-1"}
SHARD = "model-00002-of-00002.safetensors"


def manifest(files: dict[str, bytes]) -> bytes:
    weights = {name: data for name, data in files.items() if name.endswith(".safetensors")}
    return "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in weights.items()).encode()


def copy() -> dict[str, bytes]:
    """A checkpoint with what `download` notes beside it."""
    files = checkpoint()
    return files | {MARKER: NOTE, MANIFEST: manifest(files)}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def fetch(folder: Path, origin: str, *more: str, env: dict[str, str] | None = None, profile: str = PROFILE) -> Result:
    command = ["download", profile, "--model-dir", str(folder), "--from", origin, *more]
    return CliRunner().invoke(app, command, env=env or {})


def assert_complete(folder: Path) -> None:
    for name, data in checkpoint().items():
        if name.endswith(".bin"):
            assert not (folder / name).exists(), "vLLM does not load it"
        else:
            assert (folder / name).read_bytes() == data
    assert json.loads((folder / MARKER).read_text())["revision"] == COMMIT
    assert not (folder / ".incoming").exists()


# --- verify and dry run, from the hub -------------------------------------------------------------------------


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve(Hub({f"{ULTRA}-NVFP4": checkpoint()})) as running:
        yield running


def test_a_dry_run_tells_what_would_come_and_brings_nothing(hub: Hub, tmp_path: Path) -> None:
    run = download(hub, tmp_path, PROFILE, "--dry-run")
    assert run.exit_code == 0, run.output
    assert not (tmp_path / "model").exists() and hub.served_bytes() == 0
    assert f"{SHARD}" in run.stdout and "sha256" in run.stdout and "GB are free" in run.stdout
    assert f"{ULTRA}-NVFP4 at {COMMIT}: 4 files" in run.stderr


def test_hashes_of_the_hub_are_verified_and_kept_for_copies(hub: Hub, tmp_path: Path) -> None:
    run = download(hub, tmp_path, PROFILE, "--verify")
    assert run.exit_code == 0, run.stderr
    assert "verified by SHA-256: 2 files" in run.stderr and "verified by git's blob id: 2 files" in run.stderr
    checked = subprocess.run(
        ["sha256sum", "--check", MANIFEST], cwd=tmp_path / "model", capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0 and checked.stdout.count(": OK") == 2


@pytest.mark.parametrize("name", [SHARD, "config.json"])
def test_a_file_that_rotted_is_found_and_brought_again(hub: Hub, tmp_path: Path, name: str) -> None:
    """Same size and time of change, another byte: neither the hub's library nor the index sees it."""
    assert download(hub, tmp_path, PROFILE).exit_code == 0
    file = tmp_path / "model" / name
    data, stat = file.read_bytes(), file.stat()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert download(hub, tmp_path, PROFILE).exit_code == 0
    assert file.read_bytes() != data, "without --verify it is not seen"
    run = download(hub, tmp_path, PROFILE, "--verify")
    assert run.exit_code == 0, run.stderr
    assert f"1 files do not have their hash and were deleted: {name}" in run.stderr
    assert file.read_bytes() == data


def test_a_hub_that_serves_other_bytes_than_it_tells_is_given_up(hub: Hub, tmp_path: Path) -> None:
    class Lying(dict[str, bytes]):
        """Listed with one shard, served with another one of the same size."""

        def __getitem__(self, name: str) -> bytes:
            data = super().__getitem__(name)
            return data[:-1] + b"x" if name == SHARD else data

    hub.repositories[f"{ULTRA}-NVFP4"] = Lying(checkpoint())
    run = download(hub, tmp_path, PROFILE, "--verify", "--tries", "2")
    assert run.exit_code == 2 and f"were deleted: {SHARD}" in run.stderr
    assert not (tmp_path / "model" / MARKER).exists()


# --- from a folder --------------------------------------------------------------------------------------------


def test_a_folder_is_copied_proven_and_verified(tmp_path: Path) -> None:
    there, here = write(tmp_path / "there", copy()), tmp_path / "here"
    (there / ".cache").mkdir()
    (there / ".cache" / "notes").write_text("another program's")
    run = fetch(here, str(there), "--verify")
    assert run.exit_code == 0, run.output
    assert "verified by SHA-256: 2 files" in run.stderr
    assert f"not verified, as {there} tells no hash of them: config.json, model.safetensors.index.json" in run.stderr
    assert_complete(here)
    assert not (here / ".cache").exists()
    before = (here / SHARD).stat().st_ino
    assert fetch(here, str(there)).exit_code == 0
    assert (here / SHARD).stat().st_ino == before, "what is there is not copied again"


def test_links_of_the_hubs_cache_are_followed(tmp_path: Path) -> None:
    blobs, snapshot = write(tmp_path / "blobs", copy()), tmp_path / "snapshot"
    snapshot.mkdir()
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(blob)
    assert fetch(tmp_path / "here", str(snapshot)).exit_code == 0
    assert_complete(tmp_path / "here")
    assert not (tmp_path / "here" / SHARD).is_symlink()


Files = dict[str, bytes]


def without(*names: str) -> Callable[[Files], None]:
    def change(files: Files) -> None:
        for name in names:
            del files[name]

    return change


def with_file(name: str, data: bytes, *missing: str) -> Callable[[Files], None]:
    def change(files: Files) -> None:
        without(*missing)(files)
        files[name] = data

    return change


@pytest.mark.parametrize(
    ("change", "more", "says"),
    [
        (with_file(SHARD, b"x" * 70, MANIFEST), (), "the checkpoint is not complete"),
        (with_file(SHARD, checkpoint()[SHARD][:-1] + b"x"), ("--verify",), f"were deleted: {SHARD}"),
        (without(SHARD), (), f"lacks {SHARD}, which its {MANIFEST} names"),
        (without(MANIFEST), ("--verify",), "tells no hash of any file"),
        (with_file(MANIFEST, b"abc  model\n"), (), f"{MANIFEST}, line 1: expected a SHA-256"),
        (with_file(MANIFEST, b"\xff\xfe"), (), "is no text"),
        (with_file(MARKER, b"{}"), (), f"{MARKER} cannot be read: repository: Field required; "),
        (with_file(MARKER, NOTE.replace(b"-NVFP4", b"-BF16")), (), f"serves {ULTRA}-NVFP4"),
        (Files.clear, (), "holds no checkpoint: 0 files"),
        (without(), ("--revision", "abc"), f"is revision {COMMIT}, not abc"),
        (without(MARKER), ("--revision", "abc"), "does not say its revision"),
    ],
)
def test_a_copy_that_is_not_what_it_should_be_is_told(
    tmp_path: Path, change: Callable[[Files], None], more: tuple[str, ...], says: str
) -> None:
    files = copy()
    change(files)
    (tmp_path / "there").mkdir()
    run = fetch(tmp_path / "here", str(write(tmp_path / "there", files)), "--tries", "1", *more)
    assert run.exit_code == 2 and isinstance(run.exception, SystemExit), run.output
    assert says in run.stderr
    assert not (tmp_path / "here" / MARKER).exists()


def test_a_copy_without_notes_is_taken_and_stays_without(tmp_path: Path) -> None:
    files = checkpoint()
    assert fetch(tmp_path / "here", str(write(tmp_path / "there", files))).exit_code == 0
    assert (tmp_path / "here" / SHARD).exists() and not (tmp_path / "here" / MARKER).exists()


def test_another_checkpoint_is_not_overwritten_by_a_copy(tmp_path: Path) -> None:
    here = write(tmp_path / "here", copy())
    run = fetch(here, str(write(tmp_path / "there", checkpoint())))
    assert run.exit_code == 2 and "which has no note of what it is" in run.stderr
    run = fetch(here, str(here))
    assert run.exit_code == 2 and "are the same folder" in run.stderr
    assert_complete_files(here)


def assert_complete_files(folder: Path) -> None:
    assert (folder / SHARD).read_bytes() == checkpoint()[SHARD]


@pytest.mark.parametrize(
    ("origin", "says"),
    [
        ("/not/there", "/not/there is no folder"),
        ("ftp://host/x", "use s3://BUCKET/PREFIX"),
        ("s3://", "expected s3://BUCKET/PREFIX"),
        ("s3:///prefix", "expected s3://BUCKET/PREFIX"),
        ("rsync://host", "expected rsync://"),
        ("rsync:///module", "expected rsync://"),
        ("rsync://host/mod ule", "expected rsync://"),
    ],
)
def test_an_origin_that_is_none_is_told(tmp_path: Path, origin: str, says: str) -> None:
    run = fetch(tmp_path / "here", origin)
    assert run.exit_code == 2 and isinstance(run.exception, SystemExit), run.output
    assert says in run.stderr


def test_a_model_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("x")
    run = fetch(tmp_path / "here", str(write(tmp_path / "there", copy())))
    assert run.exit_code == 2 and "is a file: give a folder" in run.stderr


def test_a_manifest_is_read_as_sha256sum_writes_it() -> None:
    digest = "a" * 64
    assert read_manifest(f"{digest}  a b\n{digest} *c\n", "x").keys() == {"a b", "c"}


# --- from a bucket --------------------------------------------------------------------------------------------


@pytest.fixture
def buckets() -> Iterator[Buckets]:
    objects = {f"models/ultra/{name}": data for name, data in copy().items()}
    others = {"models/ultra/": b"", "models/ultra-old/config.json": b"{}", "else": b"x"}
    with serve_s3(Buckets({"fleet": objects | others})) as running:
        yield running


def from_s3(buckets: Buckets, folder: Path, *more: str, origin: str = "s3://fleet/models/ultra/") -> Result:
    return fetch(folder, origin, *more, env=S3 | {"AWS_ENDPOINT_URL": buckets.url, "AWS_MAX_ATTEMPTS": "1"})


def test_a_bucket_is_copied_proven_and_verified(buckets: Buckets, tmp_path: Path) -> None:
    here = tmp_path / "here"
    run = from_s3(buckets, here, "--dry-run")
    assert run.exit_code == 0 and not here.exists() and SHARD in run.stdout, run.output
    run = from_s3(buckets, here, "--verify")
    assert run.exit_code == 0, run.output
    assert "s3://fleet/models/ultra: 4 files" in run.stderr and "verified by SHA-256: 2 files" in run.stderr
    assert_complete(here)
    before = buckets.gets.count(f"models/ultra/{SHARD}")
    assert from_s3(buckets, here).exit_code == 0
    assert buckets.gets.count(f"models/ultra/{SHARD}") == before, "what is there is not fetched again"


def test_a_bucket_that_breaks_off_is_taken_up_again(buckets: Buckets, tmp_path: Path) -> None:
    buckets.objects["fleet"] = sharded(60, 5000)
    kinds = itertools.islice(itertools.cycle(("cut", "503", "500")), 60)
    buckets.faults = itertools.chain(("", ""), itertools.chain.from_iterable((kind, "", "") for kind in kinds))
    run = from_s3(buckets, tmp_path / "here", "--workers", "16", origin="s3://fleet")
    assert run.exit_code == 0, run.stderr
    assert next(buckets.faults, None) is None, "all breaks came"


def test_faults_of_a_bucket_are_told(buckets: Buckets, tmp_path: Path) -> None:
    for origin, says in [("s3://other/x", "NoSuchBucket"), ("s3://fleet/models/none", "holds no checkpoint")]:
        run = from_s3(buckets, tmp_path / "here", origin=origin)
        assert run.exit_code == 2 and says in run.stderr, run.output
    buckets.denied = True
    run = from_s3(buckets, tmp_path / "here")
    assert run.exit_code == 2 and "AccessDenied" in run.stderr
    run = fetch(tmp_path / "here", "s3://fleet", "--tries", "1", env=S3 | {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"})
    assert run.exit_code == 2 and "Could not connect to the endpoint" in run.stderr
    run = fetch(tmp_path / "here", "s3://fleet", env=S3 | {"AWS_ENDPOINT_URL": "nonsense"})
    assert run.exit_code == 2 and "nonsense" in run.stderr and isinstance(run.exception, SystemExit)


@pytest.mark.parametrize("key", ["../evil.safetensors", "a/../../evil.safetensors", "/evil.safetensors", "a\n.json"])
def test_a_name_that_leads_out_of_the_folder_is_not_written(buckets: Buckets, tmp_path: Path, key: str) -> None:
    buckets.objects["fleet"][f"models/ultra/{key}"] = b"x"
    run = from_s3(buckets, tmp_path / "here")
    assert run.exit_code == 2 and "such a name is not written" in run.stderr
    assert not list(tmp_path.rglob("evil*"))


def test_addresses_of_buckets() -> None:
    source = s3_source("s3://b/p/q/")
    assert (source.bucket, source.prefix) == ("b", "p/q")
    assert s3_source("s3://bucket").prefix == ""


# --- from an rsync server -------------------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path) -> Iterator[str]:
    """A real rsync daemon with the module `models`."""
    if shutil.which("rsync") is None:
        pytest.skip("no rsync on this machine")
    files = copy() | {"sub folder/odd [1]*?.json": b"{}", "sub folder/left out.bin": b"x"}
    folder = write(tmp_path / "served", {f"ultra/{name}": data for name, data in files.items()})
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    config = tmp_path / "rsyncd.conf"
    user = f"uid = {os.getuid()}\ngid = {os.getgid()}\n"  # root would serve as nobody
    config.write_text(f"{user}use chroot = no\nreverse lookup = no\n[models]\npath = {folder}\nread only = yes\n")
    command = ["rsync", "--daemon", "--no-detach", f"--config={config}", f"--port={port}", "--address=127.0.0.1"]
    with subprocess.Popen([*command, "--log-file=/dev/null"]) as daemon:
        while True:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert daemon.poll() is None
            time.sleep(0.02)
        yield f"rsync://127.0.0.1:{port}/models"
        daemon.terminate()


def test_an_rsync_server_is_copied_proven_and_verified(module: str, tmp_path: Path) -> None:
    here = tmp_path / "here"
    run = fetch(here, f"{module}/ultra", "--dry-run")
    assert run.exit_code == 0 and not here.exists() and SHARD in run.stdout, run.output
    run = fetch(here, f"{module}/ultra/", "--verify", "--tries", "1")
    assert run.exit_code == 0, run.output
    assert "verified by SHA-256: 2 files" in run.stderr
    assert_complete(here)
    assert [file.name for file in (here / "sub folder").iterdir()] == ["odd [1]*?.json"]
    before = (here / SHARD).stat().st_ino
    assert fetch(here, f"{module}/ultra").exit_code == 0
    assert (here / SHARD).stat().st_ino == before, "what is there is not fetched again"


def test_faults_of_an_rsync_server_are_told(module: str, tmp_path: Path) -> None:
    for origin, says in [(f"{module}x/ultra", "Unknown module"), (f"{module}/none", "rsync ended with 23")]:
        run = fetch(tmp_path / "here", origin, "--tries", "1")
        assert run.exit_code == 2 and says in run.stderr, run.output
    run = fetch(tmp_path / "here", "rsync://127.0.0.1:1/models", "--tries", "1")
    assert run.exit_code == 2 and "Connection refused" in run.stderr


def test_a_machine_without_rsync_is_told(tmp_path: Path) -> None:
    run = fetch(tmp_path / "here", "rsync://127.0.0.1/models", env={"PATH": str(tmp_path)})
    assert run.exit_code == 2 and "apt-get install rsync" in run.stderr


def test_addresses_of_rsync_servers() -> None:
    assert rsync_source("rsync://me@host:873/models/x/").url == "rsync://me@host:873/models/x"
    with pytest.raises(ConfigError):
        rsync_source("rsync://host/ ")


def test_a_download_that_is_stopped_ends_at_once_and_goes_on_later(hub: Hub, tmp_path: Path) -> None:
    """Ctrl-C does not wait for files of ten gigabytes that are under way."""
    hub.hold = True
    command = [str(Path(sys.executable).with_name("fleetgate-worker")), "download", PROFILE]
    env = {**os.environ, "HF_ENDPOINT": hub.url}
    with subprocess.Popen(
        [*command, "--model-dir", str(tmp_path / "model")], env=env, stderr=subprocess.PIPE, text=True
    ) as process:
        hub.held.wait(60)
        process.send_signal(2)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "run the command again to resume" in said and "Traceback" not in said
    hub.hold = False
    hub.released.set()
    assert download(hub, tmp_path, PROFILE).exit_code == 0


def test_what_cannot_be_written_is_told_at_once(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").mkdir()
    run = download(hub, tmp_path, PROFILE)
    assert run.exit_code == 2 and isinstance(run.exception, SystemExit), run.output
    assert "attempt 2" not in run.stderr
    (tmp_path / "file").touch()
    run = download(hub, tmp_path / "file", PROFILE)
    assert run.exit_code == 2 and f"cannot write to {tmp_path / 'file' / 'model'}" in run.stderr, run.output
    here = tmp_path / "here"
    (here / MANIFEST).mkdir(parents=True)
    run = fetch(here, str(write(tmp_path / "there", copy())))
    assert run.exit_code == 2 and f"cannot write to {here}" in run.stderr, run.output


@pytest.mark.parametrize("token", ["hf_abc def", "hf_\u00e4", "hf_abc\nX-Evil: 1"])
def test_a_token_that_is_none_is_told_and_not_shown(hub: Hub, tmp_path: Path, token: str) -> None:
    command = ["download", PROFILE, "--model-dir", str(tmp_path / "model")]
    run = CliRunner().invoke(app, command, env={"HF_ENDPOINT": hub.url, "HF_TOKEN": token})
    assert run.exit_code == 2 and "HF_TOKEN holds" in run.stderr and "hf_" not in run.stderr


@pytest.mark.parametrize("endpoint", ["nonsense", "http://[::1", "http://127.0.0.1:99999", "ftp://127.0.0.1"])
def test_an_endpoint_that_is_none_is_told(tmp_path: Path, endpoint: str) -> None:
    command = ["download", PROFILE, "--model-dir", str(tmp_path / "model"), "--tries", "1"]
    run = CliRunner().invoke(app, command, env={"HF_ENDPOINT": endpoint, "HF_TOKEN": None})
    assert run.exit_code == 2 and isinstance(run.exception, SystemExit), run.output
