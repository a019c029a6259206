"""`make test-bounds`: the tests that real libraries matter to, with the lowest and the newest version of each.

pyproject.toml promises ranges. Every other run has what a resolver took that day, most often the newest. Here two
environments are made, in the user's cache: one with the lowest version of all that is named there, one with the newest.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fleetgate" / "bounds"
ENDS = {"lowest": "lowest-direct", "newest": "highest"}
"""An environment, and the strategy by which uv resolves it."""

TESTS = (
    "tests/flow/test_server_process.py",
    "tests/flow/test_check_and_serve.py",
    "tests/flow/test_limits.py",
    "tests/flow/test_cli_tenants.py",
    "tests/flow/test_relay.py",
    "tests/flow/test_status.py",
    "tests/admin/test_bad_input.py",
    "tests/admin/test_tenants.py",
    "tests/api/test_auth.py",
    "tests/api/test_cors.py",
    "tests/api/test_models.py",
    "tests/access/test_directory.py",
    "tests/counting",
    "tests/redis/test_client.py",
    "tests/telemetry/test_batches.py",
    "tests/config/test_config.py",
    "tests/test_docs_metrics.py",
    "tests/workers/test_download.py",
    "tests/workers/test_download_copies.py",
    "tests/workers/test_launch.py",
)
"""Real gateways, their admin listener, limits and tenants in Redis, metrics, settings, and the workers' download."""


QUIET = ("-W", "ignore::DeprecationWarning", "-W", "ignore::PendingDeprecationWarning")
"""What old libraries call of newer ones is theirs to mend; everywhere else it is an error."""


def main(arguments: list[str]) -> int:
    """Run `arguments` (default: `TESTS`) at both ends; 1 where one failed."""
    uv = _uv()
    failed = []
    for end, strategy in ENDS.items():
        print(f"== {end}", flush=True)
        python = _environment(uv, end, strategy)
        subprocess.run([uv, "pip", "list", "--python", python], check=True)
        command = [python, "-m", "pytest", "-q", *QUIET, "-m", "not real and not prove", *(arguments or TESTS)]
        if subprocess.run(command, cwd=ROOT).returncode:
            failed.append(end)
    print(f"failed with the {' and the '.join(failed)} versions" if failed else "both ends hold")
    return 1 if failed else 0


def _uv() -> Path:
    """uv, in an environment of its own: pip has no strategy for the lowest versions."""
    folder = CACHE / "uv"
    if not (folder / "bin" / "uv").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", "uv>=0.9,<1"], check=True)
    return folder / "bin" / "uv"


def _environment(uv: Path, end: str, strategy: str) -> Path:
    """The Python of an environment that has this checkout, with all that is resolved by `strategy`."""
    folder = CACHE / end
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    options = ["--quiet", "--python", str(python), "--resolution", strategy, *_registry()]
    subprocess.run([uv, "pip", "install", *options, "--editable", f"{ROOT}[dev]"], check=True)
    return python


def _registry() -> list[str]:
    """pip's indexes, which uv does not read: an installation behind a mirror has only those."""
    said = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    settings = dict(re.findall(r"(?m)^(?:global|install|:env:)\.([a-z-]+)='(.*)'$", said.stdout))
    options = ["--index-strategy", "unsafe-best-match"]  # of all that they have, as pip
    if "index-url" in settings:
        options += ["--default-index", settings["index-url"]]
    for url in settings.get("extra-index-url", "").replace("\\n", " ").split():
        options += ["--index", url]
    for place in settings.get("find-links", "").replace("\\n", " ").split():
        options += ["--find-links", place]
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
