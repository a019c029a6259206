"""What a machine says about itself, as data: taken on the spot, saved with --capture, read again with --from.

Checks only ever see a capture. So a capture that a user contributes is a test case as it stands.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from workers.catalog.facts import parse, read_document
from workers.errors import ConfigError
from workers.output_file import write_text

FORMAT = 1


class Captured(BaseModel):
    """Base of everything in a capture: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Output(Captured):
    """One command's result. `exit_code` None where the program is not installed."""

    argv: tuple[str, ...]
    exit_code: int | None
    stdout: str = ""
    stderr: str = ""

    @property
    def worked(self) -> bool:
        """Whether the program is there and succeeded."""
        return self.exit_code == 0


class Limits(Captured):
    """Soft limits of this process. None means unlimited; `locked_memory` in bytes."""

    open_files: int | None
    processes: int | None
    locked_memory: int | None


class Host(Captured):
    """Measured without a command. Sizes in bytes; `ports_taken` are ports that cannot be listened on.

    `visible_gpus` are the GPUs that CUDA_VISIBLE_DEVICES leaves, by index; None where it names none.
    """

    memory: int
    shared_memory: int
    disk_free: int
    disk_folder: str
    limits: Limits
    ports_taken: tuple[int, ...] = ()
    visible_gpus: tuple[int, ...] | None = None


class SeenGpu(Captured):
    """One GPU as the driver tells it. Memory in bytes, None where the driver does not tell it ([N/A])."""

    name: str
    memory: int | None
    memory_used: int | None
    mig: bool = False


class Gpus(Captured):
    """All GPUs, the driver's version and the newest CUDA that it serves; `source` is nvml or nvidia-smi."""

    source: str
    driver: str
    cuda: str
    gpus: tuple[SeenGpu, ...]


class Capture(Captured):
    """A machine's answers. `gpus` is NVML's answer, None without it: then the text of nvidia-smi is read.

    `verified` is False for test data that was written from documented formats.
    """

    format: int = FORMAT
    verified: bool
    origin: str
    host: Host
    gpus: Gpus | None = None
    commands: dict[str, Output]

    def output(self, name: str) -> Output:
        """A command's output; one that was not captured counts as not installed."""
        return self.commands.get(name, Output(argv=(name,), exit_code=None))


def read_capture(file: Path) -> Capture:
    """Read a saved capture. Raises ConfigError if it is none, or one of another format."""
    capture: Capture = parse(Capture, read_document(file), f"the capture {file}")
    if capture.format != FORMAT:
        raise ConfigError(f"{file} is a capture of format {capture.format}; this version reads {FORMAT}")
    return capture


def write_capture(file: Path, capture: Capture) -> None:
    """Save a capture, to be replayed or contributed. Raises ConfigError where it cannot be written."""
    write_text("--capture", file, capture.model_dump_json(indent=1) + "\n")
