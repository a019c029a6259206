"""Every YAML example in the docs is a configuration that the gateway takes."""

import re
from pathlib import Path

import pytest

from gateway.config.source import load_config
from tests.support.certificates import self_signed

DOCS = Path(__file__).parent.parent / "docs"
OF_OTHERS = ("extends:", "gpu_hours:", "metric_relabel_configs:")
"""Of workers, and of Prometheus."""

EXAMPLES = [
    pytest.param(block, id=f"{page.name}-{block.split(':')[0].splitlines()[-1]}")
    for page in sorted(DOCS.glob("*.md"))
    for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    if not block.startswith(OF_OTHERS)
]
REDIS_URL = "rediss://127.0.0.1"
REDIS = "redis: {url: 'redis://127.0.0.1'}\n"


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_a_configuration(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With keys, secrets and folders in the places that it names."""
    for variable in re.findall(r"\{env: (\w+)\}", example):
        monkeypatch.setenv(variable, REDIS_URL if variable == "REDIS_URL" else "a-secret-of-some-length")
    example = re.sub(r'(sha256: )("[\w.]+"|\.\.\.)', rf"\g<1>{'ab' * 32}", example)
    (tmp_path / "tokenizer.json").write_text("{}")
    if "/etc/fleetgate/tls" in example or "/etc/fleetgate/ca" in example:
        made = self_signed(tmp_path)
        for shown, here in (("tls.crt", made.cert), ("tls.key", made.key), ("ca.pem", made.cert)):
            example = example.replace(f"/etc/fleetgate/{shown}", str(here))
    for path in re.findall(r"\b(?:file|tokenizer): (/[\w/.-]+)", example):
        example = example.replace(path, str(tmp_path if path.startswith("/models/") else tmp_path / "tokenizer.json"))
    if "registrations" in example and "redis:" not in example:
        example += REDIS
    overrides = {} if "listen:" in example else {"listen": {"host": "127.0.0.1"}}
    file = tmp_path / "fleetgate.yaml"
    file.write_text(example)
    load_config(file, overrides)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 7
