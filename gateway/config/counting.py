"""The path of a model's tokenizer."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

_LIBRARIES = ("tokenizers", "jinja2")


def _there(path: Path) -> Path:
    """Checks without reading the file, since every reload checks it. The start reads it."""
    missing = [name for name in _LIBRARIES if find_spec(name) is None]
    if missing:
        needed = " and ".join(missing)
        raise ValueError(f"counting prompts needs {needed}: pip install 'fleetgate[tokenizer]', or leave it out")
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        file.open("rb").close()
    except OSError as error:
        raise ValueError(
            f"{file} cannot be read ({error.strerror}): give the folder with the model's tokenizer.json"
        ) from None
    return path


TokenizerPath = Annotated[Path, AfterValidator(_there)]
