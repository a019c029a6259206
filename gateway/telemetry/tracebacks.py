"""Tracebacks for the log: where an error came from, without values of a request.

There are no local variables and no values in it, since those of a request are its key and its prompt. Messages of
exceptions quote what they could not read (a key of a dictionary, a line of JSON, a URL with a password), so quotes are
left out, and whatever looks like a secret. Everything is bounded: an error may be chained, and a recursion a thousand
frames deep.
"""

import re
import traceback
from collections.abc import Iterable
from types import TracebackType

from gateway.core.errors import GatewayError

MAX_ERRORS = 4
"""Exceptions of one chain that are shown, the outermost and its causes."""

OUTER_FRAMES, INNER_FRAMES = 4, 12
"""Frames of one traceback that are shown, at its beginning and at its end."""

MAX_MESSAGE = 300
"""Characters of an exception's message, after what is quoted has been left out."""

_READ = 4096
"""Characters of a message that are read."""

_USERINFO = re.compile(r"(\w+://)[^\s/@]*@")
_QUERY = re.compile(r"(\w+://[^\s?#]*)\?\S*")
_QUOTED = re.compile(r"""(?<![A-Za-z0-9])[bBrRuUfF]{0,2}(["'`])(?:\\.|(?!\1).)*(?:\1|$)""", re.DOTALL)
_OPAQUE = re.compile(r"(?i)\bbearer\s+\S+|\bsk-\S+|[A-Za-z0-9+/_=-]{24,}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,40}(\.[A-Za-z_][A-Za-z0-9_]{0,40}){0,4}")

_ABOUT_TYPES = (AttributeError, TypeError, NameError, ImportError)
"""Errors whose quotes are around names of types and attributes."""

Raised = tuple[type[BaseException], BaseException, TracebackType | None]


def format_error(exc_info: Raised) -> str:
    """The lines of a traceback, oldest cause first, as Python writes them; without values, at most some 20 KB."""
    chain: list[tuple[BaseException, str]] = []
    error: BaseException | None = exc_info[1]
    link = ""
    seen: set[int] = set()
    while error is not None and len(chain) < MAX_ERRORS and id(error) not in seen:
        seen.add(id(error))
        chain.append((error, link))
        if error.__cause__ is not None:
            error, link = error.__cause__, "The above exception was the direct cause of the following exception:"
        elif error.__suppress_context__:
            error = None
        else:
            error, link = error.__context__, "During handling of the above exception, another exception occurred:"
    lines: list[str] = ["... earlier exceptions are left out"] if error is not None else []
    for each, before in reversed(chain):
        lines += [*_lines(each), *((before,) if before else ())]
    return "\n".join(lines)


def message_of(error: BaseException) -> str:
    """Type and message of an error in one line, without what it quotes. Our own errors say nothing secret."""
    kind = type(error).__qualname__
    try:
        text = str(error)[:_READ]
    except Exception:  # noqa: BLE001 - a __str__ may raise anything
        return kind
    if type(error).__module__.startswith("pydantic"):  # its text holds the input
        text = text.partition("\n")[0]
    message = scrub(text, names=isinstance(error, (*_ABOUT_TYPES, GatewayError)))
    return f"{kind}: {message}" if message else kind


def scrub(text: str, names: bool = False) -> str:
    """`text` in one line of at most `MAX_MESSAGE` characters, without what is quoted, credentials and long tokens;
    `names`: what is quoted stays where it is a name."""
    text = text[:_READ]
    text = _QUERY.sub(r"\1", _USERINFO.sub(r"\1", text))
    text = _QUOTED.sub(_name_or_nothing if names else "'...'", text)
    text = escape(_OPAQUE.sub("...", text))
    return text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + "..."


def escape(text: str) -> str:
    """`text` in one line: a control character could end it, or command a terminal."""
    return _CONTROL.sub(_escaped, text)


def without_credentials(text: str) -> str:
    """`text` without the users and passwords of URLs in it."""
    return _USERINFO.sub(r"\1", text) if "://" in text else text


def _escaped(found: "re.Match[str]") -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def _name_or_nothing(found: "re.Match[str]") -> str:
    inner = found[0].lstrip("bBrRuUfF")[1:-1]
    return f"'{inner}'" if _NAME.fullmatch(inner) else "'...'"


def _lines(error: BaseException) -> list[str]:
    lines: list[str] = []
    if error.__traceback__ is not None:
        lines = ["Traceback (most recent call last):", *_frames(error.__traceback__)]
    lines.append(message_of(error))
    if isinstance(error, BaseExceptionGroup):
        lines += [f"  - {message_of(each)}" for each in error.exceptions[:MAX_ERRORS]]
    return lines


def _frames(trace: TracebackType) -> Iterable[str]:
    """File, line and function of the first and the last frames."""
    frames = list(traceback.walk_tb(trace))
    left_out = len(frames) - OUTER_FRAMES - INNER_FRAMES
    for number, (frame, line) in enumerate(frames):
        if number < OUTER_FRAMES or number >= OUTER_FRAMES + max(0, left_out):
            code = frame.f_code
            yield f'  File "{code.co_filename}", line {line}, in {code.co_name}'
        elif number == OUTER_FRAMES:
            yield f"  ... {left_out} frames are left out"
