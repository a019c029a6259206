"""`unit`: each format checked by its own tool where it is installed, its script run, its refusals told.

`make check-units` also has SkyPilot's own reader, and shows which of the tools are not here.
"""

import configparser
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from workers.cli import app
from workers.unit.systemd import quote

H200 = "nemotron-3-ultra-8xh200-fp8"
PAIR = "nemotron-3-ultra-16xh100-fp8"
RANKED = "nemotron-3-ultra-16xh100-fp8-nnodes"
OFFLOAD = "nemotron-3-ultra-8xh200-nvfp4-offload"
KINDS = ("systemd", "slurm", "skypilot", "cloud-init")
PROFILES = (H200, "nemotron-3-nano-1xa100-bf16", "tiny-cpu")
NODE = (
    "--redis",
    "redis://10.0.0.2:6379",
    "--advertise",
    "http://10.0.0.7:8000",
    "--spot",
    "aws",
    "--price-kind",
    "spot",
)
SLURM_PROGRAM = """#!/bin/sh
trap 'echo TERM >> "$0.signals"; sleep 0.3; exit 7' TERM
env > "$0.environment"
echo "$@" > "$0.arguments"
while :; do sleep 0.05; done
"""


def run(kind: str, name: str = H200, *options: str) -> Result:
    return CliRunner().invoke(app, ["unit", f"--{kind}", name, *options])


def text_of(kind: str, name: str = H200, *options: str) -> str:
    done = run(kind, name, *options)
    assert done.exit_code == 0, done.output
    return done.stdout


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def service(text: str) -> configparser.SectionProxy:
    """The [Service] section; of a key that is there several times, the last."""
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return parser["Service"]


def sbatch(text: str) -> dict[str, str]:
    options = [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH")]
    return {name: value for name, _, value in (option.partition("=") for option in options)}


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_unit_has_what_a_node_needs(kind: str, name: str) -> None:
    text = text_of(kind, name, *NODE)
    for part in (f"launch {name} ", "--spot aws", "redis://10.0.0.2:6379", "http://10.0.0.7:8000"):
        assert part in text
    assert "FLEETGATE_WORKER_PRICE_KIND" in text


@pytest.mark.parametrize(("drain", "stop", "seconds"), [("600", "30", 660), ("7200.5", "0", 7231), ("0", "0", 30)])
def test_whoever_stops_it_waits_for_the_drain(drain: str, stop: str, seconds: int) -> None:
    options = ["--drain-seconds", drain, "--stop-seconds", stop]
    written = service(text_of("systemd", H200, *options))
    assert int(written["TimeoutStopSec"]) == seconds
    assert (written["KillMode"], written["KillSignal"]) == ("mixed", "SIGTERM")
    assert f"--drain-seconds {drain} --stop-seconds {stop}" in written["ExecStart"]
    assert sbatch(text_of("slurm", H200, *options))["signal"] == f"B:TERM@{seconds}"
    assert f"TimeoutStopSec={seconds}" in text_of("cloud-init", H200, *options)


def test_systemd_takes_the_service(tmp_path: Path) -> None:
    """With words that systemd would expand or split."""
    program = tmp_path / "fleetgate-worker"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    file = tmp_path / "node.service"
    odd = ["--label", 'a="50% $HOME; \\x"', "--label", "b=", "--label", "c=two words"]
    file.write_text(text_of("systemd", H200, *NODE, "--program", str(program), "--", *odd))
    verified = subprocess.run([tool("systemd-analyze"), "verify", str(file)], capture_output=True, text=True)
    assert (verified.returncode, verified.stderr) == (0, "")


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("plain/word=1", "plain/word=1"),
        ("two words", '"two words"'),
        ("", '""'),
        ("50%", "50%%"),
        ("$HOME", "$$HOME"),
        ('say "a\\b"', '"say \\"a\\\\b\\""'),
        (";", '";"'),
        ("it's", '"it\'s"'),
    ],
)
def test_words_that_systemd_would_change_are_kept(word: str, written: str) -> None:
    assert quote(word) == written


def test_a_title_is_one_line_of_a_service(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(f'extends: {H200}\nname: own\ntitle: "100% ours\\nExecStartPre=/bin/evil\\\\"\n')
    assert "Description=fleetgate node: 100%% ours ExecStartPre=/bin/evil/\n" in text_of("systemd", str(own))


def test_a_machine_without_an_address_does_not_start(tmp_path: Path) -> None:
    """It would be registered under one that no gateway reaches."""
    script, program = slurm_script(tmp_path)
    (tmp_path / "ip").write_text("#!/bin/sh\necho 'RTNETLINK answers: Network is unreachable' >&2; exit 2\n")
    (tmp_path / "ip").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", script], capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert done.returncode != 0 and not program.with_name("fleetgate-worker.arguments").exists()
    (tmp_path / "ip").write_text("#!/bin/sh\necho '192.0.2.1 via 10.0.0.1 dev eth0 src 10.0.0.7 uid 0'\n")
    program.write_text('#!/bin/sh\necho "on $FLEETGATE_WORKER_HOST"\n')
    done = subprocess.run(["bash", script], capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert done.stdout == "on 10.0.0.7\n"


def slurm_script(folder: Path, *options: str) -> tuple[Path, Path]:
    program, secrets = folder / "fleetgate-worker", folder / "secrets"
    program.write_text(SLURM_PROGRAM)
    program.chmod(0o755)
    secrets.write_text("FLEETGATE_WORKER_SECRET='a b$c'\n")
    script = folder / "node.sh"
    script.write_text(text_of("slurm", H200, "--program", str(program), "--secrets", str(secrets), *options))
    return script, program


def test_a_slurm_job_drains_on_its_signal(tmp_path: Path) -> None:
    """What Slurm sends to the batch script alone reaches the launcher, and the job ends as the launcher does."""
    script, program = slurm_script(tmp_path, "--host", "127.0.0.1", "--", "--label", "zone=a b")
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    job = subprocess.Popen(["bash", script])
    try:
        arguments = program.with_name("fleetgate-worker.arguments")
        deadline = time.monotonic() + 60
        while not arguments.exists() or not arguments.read_text():
            assert job.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        job.send_signal(signal.SIGTERM)
        assert job.wait(60) == 7
    finally:
        job.kill()
    assert arguments.read_text().startswith(f"launch {H200} --model-dir /models/{H200} --host 127.0.0.1 --port 8000")
    assert program.with_name("fleetgate-worker.signals").read_text() == "TERM\n"
    assert "FLEETGATE_WORKER_SECRET=a b$c\n" in program.with_name("fleetgate-worker.environment").read_text()


def test_a_signal_in_the_moment_of_a_slurm_jobs_start_is_not_lost(tmp_path: Path) -> None:
    """The launcher runs, and its script does not know its number yet."""
    script, program = slurm_script(tmp_path, "--host", "127.0.0.1")
    program.write_text(SLURM_PROGRAM.replace("env >", 'kill -TERM "$PPID"; env >'))
    slow = tmp_path / "slow.sh"
    slow.write_text("trap '[[ $BASH_COMMAND != launcher=\\$* ]] || sleep 2' DEBUG\n")
    assert subprocess.run(["bash", script], env=os.environ | {"BASH_ENV": str(slow)}).returncode == 7
    assert program.with_name("fleetgate-worker.signals").read_text() == "TERM\n"


def test_a_slurm_job_ends_as_a_launcher_that_ends_by_itself(tmp_path: Path) -> None:
    script, program = slurm_script(tmp_path, "--host", "127.0.0.1")
    program.write_text("#!/bin/sh\nexit 1\n")
    assert subprocess.run(["bash", script]).returncode == 1


def test_a_slurm_job_without_its_secrets_does_not_start(tmp_path: Path) -> None:
    script, program = slurm_script(tmp_path, "--host", "127.0.0.1")
    (tmp_path / "secrets").unlink()
    done = subprocess.run(["bash", script], capture_output=True, text=True)
    assert done.returncode == 1 and "secrets" in done.stderr
    assert not program.with_name("fleetgate-worker.arguments").exists()


def test_a_slurm_job_asks_for_the_profiles_machine() -> None:
    options = sbatch(text_of("slurm"))
    assert (options["gpus-per-node"], options["mem"], options["nodes"]) == ("8", "750G", "1")
    assert "gpus-per-node" not in sbatch(text_of("slurm", "tiny-cpu"))


def test_cloud_init_takes_the_user_data(tmp_path: Path) -> None:
    file = tmp_path / "user-data"
    secrets = "aws secretsmanager get-secret-value --secret-id 'node' --query SecretString --output text"
    file.write_text(text_of("cloud-init", H200, *NODE, "--secrets-from", secrets))
    checked = subprocess.run([tool("cloud-init"), "schema", "--config-file", file], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_what_cloud_init_writes_is_the_service_and_a_script(tmp_path: Path) -> None:
    """The machine gets the service as `--systemd` writes it, and a set-up whose shell is sound."""
    text = text_of("cloud-init", H200, *NODE, "--secrets-from", "print-secrets 'x y'")
    assert text.startswith("#cloud-config\n")
    unit, setup = yaml.safe_load(text)["write_files"]
    assert unit["content"] == text_of("systemd", H200, *NODE)
    script = tmp_path / "setup"
    script.write_text(setup["content"])
    assert subprocess.run(["sh", "-n", script]).returncode == 0
    lines = setup["content"].splitlines()
    assert "(print-secrets 'x y') > /etc/fleetgate/worker.env" in lines
    assert lines[-1] == f"systemctl enable --now {Path(unit['path']).name}"
    assert not any("download" in line for line in yaml.safe_load(text_of("cloud-init", "tiny-cpu"))["write_files"][1])


def task(name: str = H200, *options: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(text_of("skypilot", name, *options))
    return document


def test_a_skypilot_task_asks_for_the_profiles_machine(tmp_path: Path) -> None:
    document = task(H200, *NODE)
    resources = document["resources"]
    assert resources["accelerators"] == {"H200": 8} and resources["memory"] == "750+"
    assert resources["disk_size"] > 1100 and resources["use_spot"] is True
    assert task(H200, "--price-kind", "on-demand")["resources"]["use_spot"] is False
    assert "accelerators" not in task("tiny-cpu")["resources"]
    assert task("nemotron-3-nano-1xa100-bf16")["resources"]["accelerators"] == {"A100-80GB": 1}
    assert set(document["secrets"].values()) == {""}, "their values come with `sky launch --secret`"
    for part in ("setup", "run"):
        script = tmp_path / part
        script.write_text(document[part])
        assert subprocess.run(["sh", "-n", script]).returncode == 0


def test_a_skypilot_task_runs_the_launcher(tmp_path: Path) -> None:
    """On the address that SkyPilot names, without the secrets that were not given."""
    program = tmp_path / "fleetgate-env" / "bin" / "fleetgate-worker"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\nenv; echo "$@"\n')
    program.chmod(0o755)
    given = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "SKYPILOT_NODE_IPS": "10.0.0.9\n10.0.0.10"}
    secrets = {"FLEETGATE_WORKER_SECRET": "s", "VLLM_API_KEY": "", "HF_TOKEN": ""}
    done = subprocess.run(["bash", "-c", task()["run"]], env=given | secrets, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "FLEETGATE_WORKER_HOST=10.0.0.9\n" in done.stdout and "FLEETGATE_WORKER_SECRET=s\n" in done.stdout
    assert "VLLM_API_KEY" not in done.stdout and f"launch {H200} " in done.stdout


def test_skypilot_takes_the_task(tmp_path: Path) -> None:
    """By SkyPilot's own reader of tasks, in the environment of `make check-units`."""
    python = os.environ.get("SKYPILOT_PYTHON")
    if python is None:
        pytest.skip("SKYPILOT_PYTHON is not set: make check-units")
    script = "import sys, sky; print([sky.Task.from_yaml(file).name for file in sys.argv[1:]])"
    files = []
    for name in PROFILES:
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(text_of("skypilot", name, *NODE))
    done = subprocess.run([python, "-c", script, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--slurm"], "give one of --systemd"),
        (["--redis", "redis://user:hunter2@10.0.0.2"], "put FLEETGATE_WORKER_REDIS=... into the file"),
        (["--redis", "10.0.0.2:6379"], "expected redis://HOST:PORT"),
        (["--", "--redis", "redis://:hunter2@10.0.0.2"], "after -- has a user or a password"),
        (["--advertise", "10.0.0.7:8000"], "expected http://HOST:PORT"),
        (["--advertise", "http://["], "expected http://HOST:PORT"),
        (["--host", "0.0.0.0"], "add --advertise http://ADDRESS:PORT"),
        (["--model-dir", "/models\nExecStartPre=/bin/evil"], "nor have line breaks"),
        (["--program", ""], "must not be empty"),
        (["--program", "fleetgate-worker"], "systemd needs the whole path"),
        (["--secrets", "worker.env"], "the whole path of a file"),
        (["--secrets", "/etc/worker.env\\"], "the whole path of a file"),
        (["--model-dir", "/models\u2028x"], "nor have line breaks"),
        (["--model-dir", "/models\udc80"], "nor have line breaks"),
        (["--secrets-from", "print-secrets"], "is for --cloud-init"),
        (["--price-kind", "cheap"], "known: on-demand, reserved, spot"),
        (["--drain-seconds", "nan"], "--drain-seconds"),
        (["--drain-seconds", "1e9"], "--drain-seconds"),
        (["--", "--role", "head"], "use --role single"),
        (["--", "--no-such-option"], "No such option"),
        (["--", "--weight", "heavy"], "Invalid value for '--weight'"),
        (["--spot", "amazon", "--price-kind", "spot"], "--spot 'amazon': use aws"),
        (["--price-kind", "spot", "--", "--spot", "url:nowhere"], "expected url:http://HOST"),
        (["--price-kind", "spot", "--spot", "gcp", "--", "--spot-poll-seconds", "100"], "gcp gives 30 s"),
        (["--spot", "aws"], "--spot without --price-kind"),
        (["--", "--spot=aws"], "--spot without --price-kind"),
        (["--", "--price-kind=spot"], "--price-kind stands before --"),
        (["--", "--metrics", "9109"], "expected HOST:PORT"),
        (["--", "--label", "zone"], "it takes KEY=VALUE"),
        (["--", "--node-id", "my node"], "--node-id 'my node'"),
        (["--", "--price", "1e9"], "is no amount of US dollars"),
        (["--", "--command", "fake 'x"], "No closing quotation"),
        (["--", "--program", "vllm 'x"], "No closing quotation"),
        (["--", "--rank", "1"], "--rank: --role single"),
        (["--", "--address", "10.0.0.1"], "--address: --role single"),
        (["--", "--head", "10.0.0.1"], "--head: --role single"),
    ],
)
def test_wrong_uses_are_told(options: list[str], says: str) -> None:
    done = run("systemd", H200, *options)
    assert done.exit_code == 2
    assert says in " ".join(done.output.replace("│", " ").split())
    assert "hunter2" not in done.output


def test_a_file_of_notices_is_one_of_the_other_machine() -> None:
    done = run("systemd", H200, "--price-kind", "spot", "--spot", "file:/no/such/folder/notice")
    assert done.exit_code == 0 and "--spot file:/no/such/folder/notice" in done.output


@pytest.mark.parametrize(
    ("kind", "name", "more", "says"),
    [
        ("slurm", PAIR, [], "runs on 2 machines: --slurm is for one machine"),
        ("skypilot", PAIR, [], "--skypilot is for one machine"),
        ("systemd", PAIR, [], "with a file each"),
        ("systemd", PAIR, ["--", "--role", "worker", "--head", "10.0.0.1", "--rank", "1"], "--rank: --role worker"),
        (
            "systemd",
            RANKED,
            ["--", "--role", "worker", "--head", "10.0.0.1", "--address", "10.0.0.3"],
            "--address: --role",
        ),
        (
            "systemd",
            RANKED,
            ["--", "--role", "head", "--address", "10.0.0.1", "--head", "10.0.0.1"],
            "--head: --role head",
        ),
        ("systemd", PAIR, ["--", "--role", "worker"], "needs --head"),
        ("systemd", RANKED, [], "--head ADDRESS --rank N"),
        ("systemd", RANKED, ["--", "--role", "head"], "--role head needs --address"),
        ("systemd", RANKED, ["--", "--role", "worker", "--head", "10.0.0.1", "--rank", "2"], "ranks from 0"),
        ("skypilot", H200, ["--secrets", "/etc/x"], "sky launch --secret"),
        ("cloud-init", H200, ["--program", "/fleetgate-worker"], "--cloud-init installs it"),
        ("systemd", "nobody", [], "unknown profile"),
    ],
)
def test_profiles_that_a_format_cannot_start(kind: str, name: str, more: list[str], says: str) -> None:
    done = run(kind, name, *more)
    assert done.exit_code == 2 and says in " ".join(done.output.split())


def test_each_machine_of_several_has_its_own_service() -> None:
    text = text_of("systemd", PAIR, "--", "--role", "worker", "--head", "10.0.0.1")
    assert "--role worker --head 10.0.0.1" in text
    joined = ("--role", "worker", "--head", "10.0.0.1", "--rank", "1")
    assert " ".join(joined) in text_of("systemd", RANKED, "--", *joined)


def test_a_machine_that_ray_joins_gets_ray() -> None:
    """vLLM comes without it."""
    for name, ray in ((PAIR, True), (RANKED, False)):
        text = text_of("cloud-init", name, "--", "--role", "head", "--address", "10.0.0.1")
        assert ("'ray[cgraph]>=2.48,<3'" in text) is ray and "vllm==" in text
    assert "ray[cgraph]" not in task()["setup"]


def test_offloaded_prefixes_have_memory_and_a_folder() -> None:
    """806 GB for loading and 512 GiB beside them; the disk's folder is the service's."""
    assert sbatch(text_of("slurm", OFFLOAD))["mem"] == "1356G"
    document = task(OFFLOAD)
    assert document["resources"]["memory"] == "1356+"
    made = f"/models/{OFFLOAD} /kv-cache"
    assert f'install -d -o "$(id -u)" {made}\n' in document["setup"]
    assert f"/var/lib/fleetgate {made}\n" in yaml.safe_load(text_of("cloud-init", OFFLOAD))["write_files"][1]["content"]


def test_a_profile_of_ones_own_is_found_where_it_lies(tmp_path: Path) -> None:
    """A new machine does not have it."""
    own = tmp_path / "ours.yaml"
    own.write_text(f"extends: {H200}\nname: ours\n")
    assert f"launch {own} --model-dir /models/ours" in text_of("slurm", str(own))
    assert f"FLEETGATE_WORKER_PROFILES={tmp_path}" in text_of("systemd", "ours", "--profiles", str(tmp_path))
    for kind in ("skypilot", "cloud-init"):
        done = run(kind, "ours", "--profiles", str(tmp_path))
        assert done.exit_code == 2 and "a profile of yours" in done.output


def test_secrets_of_the_environment_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FLEETGATE_WORKER_SECRET", "VLLM_API_KEY", "HF_TOKEN", "FLEETGATE_WORKER_REDIS"):
        monkeypatch.setenv(name, "redis://:hunter2@10.0.0.2")
    assert not any("hunter2" in text_of(kind) for kind in KINDS)


def test_a_file_is_overwritten_only_when_told_to(tmp_path: Path) -> None:
    file = tmp_path / "node.service"
    assert run("systemd", H200, "--output", str(file)).exit_code == 0
    whole = file.read_text()
    assert whole == text_of("systemd") and file.stat().st_mode & 0o777 == 0o644
    file.write_text("mine")
    for taken in (file, tmp_path / "link"):
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")
        refused = run("systemd", H200, "--output", str(taken))
        assert refused.exit_code == 2 and "--force overwrites it" in " ".join(refused.output.split())
    assert file.read_text() == "mine" and not (tmp_path / "nowhere").exists()
    assert run("systemd", H200, "--output", str(file), "--force").exit_code == 0
    assert file.read_text() == whole
    for nowhere in (tmp_path / "no" / "folder", tmp_path):
        refused = run("systemd", H200, "--output", str(nowhere), "--force")
        assert refused.exit_code == 2 and "cannot be written" in " ".join(refused.output.split())
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["link", "node.service"]
