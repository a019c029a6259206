"""The process that reads bodies of many values: `python -m gateway.reading.child`, started by `BodyReader`.

    a request   "!HQ": lengths of the dialect's name and of the body; then both
    an answer   "!Q": length of what follows; then whether the body is outlined, and an `Outlined` or a `Refusal` as a
                tuple, by `marshal`

It ends when its input does. It runs with less priority than the gateway, whose streams it would otherwise slow down on
a busy machine.
"""

import gc
import marshal
import os
import signal
import sys
from typing import BinaryIO

from gateway.core.dialects import DIALECTS
from gateway.core.reading.outlining import Outlined, outline_body
from gateway.reading.frames import ANSWER, REQUEST

NICE = 5

_DIALECTS = {dialect.name: dialect for dialect in DIALECTS}


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer until `requests` ends."""
    while len(head := requests.read(REQUEST.size)) == REQUEST.size:
        name_length, length = REQUEST.unpack(head)
        name = requests.read(name_length).decode()
        found = outline_body(_DIALECTS[name], requests.read(length))
        answer = marshal.dumps((isinstance(found, Outlined), tuple(found)))
        answers.write(ANSWER.pack(len(answer)))
        answers.write(answer)
        answers.flush()
        del found, answer


def main() -> None:
    """Serve on the standard streams. The gateway's terminal and its supervisor signal the gateway, which ends this."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(NICE)
    gc.disable()  # nothing here makes cycles of bodies
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
