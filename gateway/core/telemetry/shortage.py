"""Errors of the operating system that say what this machine is short of, and nothing about the peer."""

import errno

_OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""Open files of the process and of the system, buffers, memory."""

_OF_PORTS = errno.EADDRNOTAVAIL
"""No local port is left; for one of several addresses also that this machine has no such network (IPv6)."""


def shortage_in(error: BaseException) -> str | None:
    """The errno's name, such as EMFILE, where `error` or what it was raised from is a shortage of this machine.

    Of several errors in a group one of the machine is enough: what the others would have been is then not known.
    Ports have to be short for all of them.
    """
    if isinstance(error, BaseExceptionGroup):
        found = [shortage_in(each) for each in error.exceptions]
        own = [name for name in found if name is not None and name != errno.errorcode[_OF_PORTS]]
        return own[0] if own else found[0] if None not in found else None
    if isinstance(error, OSError) and (error.errno in _OF_THE_MACHINE or error.errno == _OF_PORTS):
        return errno.errorcode[error.errno]
    below = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None if below is None else shortage_in(below)
