"""TLS contexts for connections to nodes: one for each file of authorities, however many nodes and connections use it.

A context with the system's authorities takes half a megabyte and 20 ms, in which the event loop stands still.
"""

import ssl
from functools import lru_cache
from pathlib import Path

MOST_FILES = 64
"""Contexts that are kept for other uses, the latest."""


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """The context that trusts the authorities of `ca_file`, or the system's where None. A file that has been written
    anew is read again. Raises OSError where it cannot be read."""
    if ca_file is None:
        return _context(None, 0, 0)
    stat = Path(ca_file).stat()
    return _context(ca_file, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=MOST_FILES)
def _context(ca_file: str | None, changed: int, size: int) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file)
