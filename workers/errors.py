"""The errors of the worker package. Commands print them as one message and exit non-zero; nothing else catches them.

WorkerError
├── ConfigError     a profile, a catalogue file, a version or an option is wrong
├── MissingTool     a library or program that a command needs is not installed
├── SetUpFailed     something a node needs could not be installed or built
├── DownloadFailed  the checkpoint could not be fetched or is not complete
└── NodeFailed      a vLLM server did not start, or keeps dying
"""

from pydantic import ValidationError


class WorkerError(Exception):
    """Its text is for the person at the terminal: what happened, then what to do."""


class ConfigError(WorkerError):
    """A profile, a catalogue file, a version or a model's config.json is wrong or incomplete."""


class MissingTool(WorkerError):
    """A library or program that this command needs is not installed."""


class SetUpFailed(WorkerError):
    """A virtual environment, a download or a model could not be made."""


class DownloadFailed(WorkerError):
    """The checkpoint could not be fetched or is not complete."""


class NodeFailed(WorkerError):
    """A vLLM server could not be started, ended before it was ready, or keeps dying."""


def problems_of(error: ValidationError, whole: str = "the whole") -> list[str]:
    """What is wrong with each field, as `field: words`; where it is none of the fields, `whole` stands for it."""
    found = error.errors(include_url=False, include_input=False)
    told = [(".".join(map(str, each["loc"])), each["msg"].removeprefix("Value error, ")) for each in found]
    return [f"{field or whole}: {words}" for field, words in told]
