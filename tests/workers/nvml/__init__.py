"""A libnvidia-ml.so.1 for tests: nvidia-ml-py loads it as it loads the driver's. There is no GPU here."""

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("stand_in.c")
NAME = "libnvidia-ml.so.1"


def build(folder: Path) -> Path:
    """Compile it into `folder`, for LD_LIBRARY_PATH, and return the library's path."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler for the stand-in of libnvidia-ml.so.1")
    library = folder / NAME
    options = ["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-Wl,-soname,{NAME}", "-o", str(library)]
    subprocess.run([compiler, *options, str(SOURCE)], check=True)
    return library
