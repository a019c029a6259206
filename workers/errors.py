"""The errors of the worker package. Commands print them as one message and exit 1; nothing else catches them.

WorkerError
├── SetUpFailed     something a node needs could not be installed or built
└── NodeFailed      a vLLM server did not start
"""


class WorkerError(Exception):
    """Its text is for the person at the terminal: what happened, then what to do."""


class SetUpFailed(WorkerError):
    """A virtual environment, a download or a model could not be made."""


class NodeFailed(WorkerError):
    """A vLLM server could not be started, or ended before it was ready."""
