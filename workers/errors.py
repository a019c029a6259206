"""What can go wrong on a node, as the operator sees it: one sentence that says what and what to do."""


class WorkerError(Exception):
    """Base of all errors that end a command with a message instead of a traceback."""


class ConfigError(WorkerError):
    """A profile, a catalogue file or a model's config.json is wrong or incomplete."""


class MissingToolError(WorkerError):
    """A library or program that this command needs is not installed."""


class NodeFailedError(WorkerError):
    """The vLLM server could not be brought up, or keeps dying."""


class DownloadFailedError(WorkerError):
    """The checkpoint could not be fetched or is not complete."""
