"""The plain manifests in docs/kubernetes, rendered from the chart's examples: `python -m tests.charts.manifests`."""

from tests.charts.helm import CHART, ROOT, rendered

FOLDER = ROOT / "docs" / "kubernetes"
EXAMPLES = sorted(file.stem for file in (CHART / "examples").glob("*.yaml"))


def manifest(example: str) -> str:
    """What the file of an example has to hold."""
    about = [line for line in (CHART / "examples" / f"{example}.yaml").read_text().splitlines() if line.startswith("#")]
    head = [
        *about,
        "#",
        "# Made by `make manifests` from charts/fleetgate. It needs the Secret of docs/kubernetes.md first.",
        f"# kubectl -n fleetgate apply -f docs/kubernetes/{example}.yaml",
    ]
    return "\n".join([*head, rendered(example)])


def main() -> None:
    """Write all of them."""
    FOLDER.mkdir(exist_ok=True)
    for stale in FOLDER.glob("*.yaml"):
        stale.unlink()
    for example in EXAMPLES:
        (FOLDER / f"{example}.yaml").write_text(manifest(example))


if __name__ == "__main__":
    main()
