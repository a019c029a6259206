"""docs/errors.md: every message of the gateway's errors, by its words, out of the places that raise them."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.api.errors import shape_error
from gateway.core import errors
from gateway.core.errors import ClientGone, GatewayError
from tests.docs.site_hooks import ROOT, slug

KINDS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, GatewayError) and kind is not GatewayError
}
WORDED_ELSEWHERE = {("gateway/access/gate.py", "problem"): "gateway/core/access/browser_guard.py"}
"""Where the words of an error are made in another module: by the file that raises it, and the name that it passes."""

HEAD = """# Errors by their words

Every message of the gateway's own errors, made from the code by `make references`: search this page for words of the
one you see. `...` stands for what differs. The code leads to what it means and what to do. An error that is not here is
the node's own, passed on as it came, or a [proxy's](proxies.md#when-something-is-wrong).

| message | status | code |
|---|---|---|"""


@dataclass(frozen=True, order=True)
class Message:
    """One row."""

    words: str
    status: int
    code: str


def messages() -> list[Message]:
    """All of them, by their words. Raises LookupError where the words of an error cannot be found."""
    found = set()
    for file in sorted((ROOT / "gateway").rglob("*.py")):
        module = _Module(file)
        for call in module.raised():
            found |= set(module.messages(call))
    return sorted(found, key=lambda each: (re.sub(r"\W", "", each.words).lower(), each))


class _Module:
    def __init__(self, file: Path) -> None:
        self.name = file.relative_to(ROOT).as_posix()
        self._tree = ast.parse(file.read_text())

    def raised(self) -> Iterator[ast.Call]:
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Call) and _name(node.func) in KINDS:
                yield node

    def messages(self, call: ast.Call) -> Iterator[Message]:
        kind = KINDS[_name(call.func)]
        given = {each.arg: each.value for each in call.keywords}
        code = given.get("code")
        if issubclass(kind, ClientGone) or (code is not None and not isinstance(code, ast.Constant)):
            return  # nobody is told; or an error that is told on
        words = call.args[0] if call.args else given.get("message")
        assert words is not None, f"{self.name}:{call.lineno}: an error without a message"
        texts = self._texts(words)
        if not texts:
            raise LookupError(
                f"{self.name}:{call.lineno}: what {ast.unparse(words)!r} says cannot be found: make it a string in "
                f"this module, or name the module of its words in WORDED_ELSEWHERE ({__file__})"
            )
        slug_ = str(code.value) if isinstance(code, ast.Constant) else kind.default_code
        for text in texts:
            yield Message(" ".join(text.split()), shape_error(kind(""), "").status, slug_)

    def _texts(self, words: ast.expr) -> set[str]:
        """What an expression can say: itself, or what is assigned to it or passed for it in this module."""
        if not isinstance(words, ast.Name):
            text = _text(words)
            return set() if text is None else {text}
        elsewhere = WORDED_ELSEWHERE.get((self.name, words.id))
        if elsewhere is not None:
            return {text for text in map(_text, _returned(ROOT / elsewhere)) if text is not None}
        assigned = {
            node.lineno: text
            for node in ast.walk(self._tree)
            if isinstance(node, ast.Assign)
            and any(isinstance(target, ast.Name) and target.id == words.id for target in node.targets)
            and (text := _text(node.value)) is not None
        }
        before = [line for line in assigned if line < words.lineno]
        found = {assigned[max(before)]} if before else set()
        return found or {text for value in self._passed(words.id) if (text := _text(value)) is not None}

    def _passed(self, parameter: str) -> Iterator[ast.expr]:
        for function in ast.walk(self._tree):
            names = [each.arg for each in function.args.args] if isinstance(function, ast.FunctionDef) else []
            if isinstance(function, ast.FunctionDef) and parameter in names:
                for node in ast.walk(self._tree):
                    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function.name:
                        yield node.args[names.index(parameter)]


def _name(function: ast.expr) -> str:
    """The last name of what is called: `InvalidRequest`, also as `e.InvalidRequest`."""
    match function:
        case ast.Name(id=name) | ast.Attribute(value=ast.Name(), attr=name):
            return name
        case _:
            return ""


def _returned(file: Path) -> Iterator[ast.expr]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.JoinedStr):
            yield node.value


def _text(words: ast.expr) -> str | None:
    """A string with `...` for what is filled in; None for what is no string."""
    match words:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            both = _text(left), _text(right)
            return None if both == (None, None) else "".join(text or "..." for text in both)
        case ast.BoolOp(values=[*_, last]):
            return _text(last)
        case ast.IfExp(body=body):
            return _text(body)
        case _:
            return None


def places() -> dict[str, str]:
    """The heading of docs/troubleshooting.md under which each code stands."""
    found: dict[str, str] = {}
    heading = ""
    for line in (ROOT / "docs" / "troubleshooting.md").read_text().splitlines():
        if line.startswith("#"):
            heading = slug(line.lstrip("# "))
        for code in re.findall(r"`(?:\d{3} )?([a-z_]+)`", line.split(" | ")[0]) if line.startswith("|") else ():
            found.setdefault(code, heading)
    return found


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *_rows(), ""])


def _rows() -> Iterator[str]:
    where = places()
    for each in messages():
        words = each.words.replace("|", "\\|").replace("<", "&lt;")
        code = f"[`{each.code}`](troubleshooting.md#{where[each.code]})" if each.code in where else f"`{each.code}`"
        yield f"| {words} | {each.status} | {code} |"
