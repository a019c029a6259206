"""Validates the chart's objects of operators' kinds: `python -m tests.charts.operators`, as `make check-charts` does.

The schemas come from npm into the user's cache. LeaderWorkerSet has none there: `make test` checks its pods as those of
a Deployment, and its other fields by the names in its API.
"""

import json
import shutil
import subprocess
from pathlib import Path

from tests.charts.helm import CACHE, documents, fetch, found_helm
from tests.charts.manifests import EXAMPLES

PACKAGES = (
    "@kubernetes-models/keda@2.0.0",
    "@kubernetes-models/prometheus-operator@6.0.0",
    "@kubernetes-models/gateway-api@2.0.0",
)
KINDS = ("PodMonitor", "PrometheusRule", "ServiceMonitor", "ScaledObject", "HTTPRoute")
FOLDER = CACHE.parent / "operators"


def main() -> None:
    """Raises where one is not valid, or where a kind is in no example."""
    if found_helm() is None:
        fetch()
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not (FOLDER / "node_modules").exists():
        npm = ["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(FOLDER), *PACKAGES]
        subprocess.run(npm, check=True, cwd=FOLDER)
    shutil.copy(Path(__file__).with_name("operators.mjs"), FOLDER / "operators.mjs")
    found = [each for example in EXAMPLES for each in documents(example) if each["kind"] in KINDS]
    assert {each["kind"] for each in found} == set(KINDS)
    subprocess.run(["node", str(FOLDER / "operators.mjs")], input=json.dumps(found), text=True, check=True)


if __name__ == "__main__":
    main()
