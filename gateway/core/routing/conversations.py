"""Which conversation a request belongs to: what the client calls it, what it opens with, and which agent it is.

A conversation is what shares a growing prefix, so that the node of its last turn has most of the next prompt in its
cache. Its opening is system prompt, tools and first user message: they stay the same from turn to turn.

    a request has                           its conversation is
    `prompt_cache_key`                      that key
    a session header                        the session and the opening: a session has several agents, and its title
                                            or its summary is asked for with another prompt
    a user, where users name conversations  that user
    none of these                           the opening

In each case an agent's header (`AGENT_HEADERS`) is added. Claude Code's attribution is not part of an opening, and
neither is today's date where the session is named: without a name, the day is what tells two sessions apart that begin
with the same words. Long texts are not hashed whole: their length, their beginning and their end tell them apart.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

from gateway.core.reading.outline import Outline
from gateway.core.routing.known_clients import AGENT_HEADERS, ATTRIBUTION, SESSION_HEADERS, behind_attribution, lasting

EDGE = 512
"""Characters of a text's beginning and of its end that count."""

GROWING = 2048
"""Characters of a raw prompt that count: it has no parts, and its end moves with every turn."""

_RAW = ("prompt", "query", "queries", "text_1", "data_1")
"""Fields of a raw prompt, and of what is reranked or scored."""

OPENING_MESSAGES = 8
"""Messages among which the first of a user is looked for."""

KEY_BYTES = 16

_SESSION_HEADERS = tuple([name.encode() for name in SESSION_HEADERS])


class ConversationNaming(NamedTuple):
    """What else than `prompt_cache_key` names a conversation: headers of sessions (lower case), and the user if
    `by_user`."""

    headers: tuple[bytes, ...] = _SESSION_HEADERS
    by_user: bool = False


def conversation_of(
    body: Mapping[str, Any], headers: Mapping[bytes, bytes], tenant: str, naming: ConversationNaming
) -> bytes:
    """`KEY_BYTES` that stand for the conversation. Two tenants never share one, whatever they call theirs."""
    pieces = _pieces(body, headers, naming)
    for header in AGENT_HEADERS:
        if header in headers:
            pieces += (header, headers[header])
    digest = blake2b(tenant.encode(errors="replace"), digest_size=KEY_BYTES)
    for piece in pieces:
        digest.update(b"%d:" % len(piece))
        digest.update(piece)
    return digest.digest()


def _pieces(body: Mapping[str, Any], headers: Mapping[bytes, bytes], naming: ConversationNaming) -> list[bytes]:
    key = body.get("prompt_cache_key")
    if isinstance(key, str) and key:
        return [b"named", _encoded(key)]
    for header in naming.headers:
        if headers.get(header):
            return [b"session", headers[header], *map(lasting, opening_of(body))]
    if naming.by_user:
        metadata = body.get("metadata")
        user = body.get("user") or (metadata.get("user_id") if isinstance(metadata, dict) else None)
        if isinstance(user, str) and user:
            return [b"named", _encoded(user)]
    return [b"opens", *opening_of(body)]


def opening_of(body: Mapping[str, Any]) -> Sequence[bytes]:
    """What tells conversations apart that nobody has named."""
    if type(body) is Outline:
        return body.opening
    pieces = [_sample(body.get("system")), _sample(body.get("instructions")), _tools(body.get("tools"))]
    turns = body.get("messages") or body.get("input")
    if isinstance(turns, list) and turns and not isinstance(turns[0], dict):
        pieces.append(_beginning(turns))  # texts to embed, or token ids
    elif isinstance(turns, list):
        for turn in turns[:OPENING_MESSAGES]:
            if isinstance(turn, dict):
                pieces.append(_sample(turn.get("content")))
                if turn.get("role") == "user":
                    break
    elif isinstance(turns, str):
        pieces.append(_sample(turns))
    else:
        pieces.append(_beginning(next((body[name] for name in _RAW if body.get(name)), None)))
    return pieces


def _sample(content: Any) -> bytes:
    """A text's length and edges; of a list of parts each text's, of other parts (images) their kind."""
    if isinstance(content, str):
        if content.startswith(ATTRIBUTION):
            content = behind_attribution(content)
        text = content if len(content) <= 2 * EDGE else f"{len(content)} {content[:EDGE]}{content[-EDGE:]}"
        return _encoded(text)
    if not isinstance(content, list):
        return b""
    parts = [part for part in content[:OPENING_MESSAGES] if isinstance(part, dict)]
    return b"\0".join(_sample(part.get("text")) or _word(part.get("type")) for part in parts)


def _tools(tools: Any) -> bytes:
    """How many there are, and what the first and the last are called."""
    if not isinstance(tools, list) or not tools:
        return b""
    return b"%d %b %b" % (len(tools), _tool_name(tools[0]), _tool_name(tools[-1]))


def _tool_name(tool: Any) -> bytes:
    """Chat puts it into a function, the other dialects have it at the top."""
    if not isinstance(tool, dict):
        return b""
    function = tool.get("function")
    return _word((function if isinstance(function, dict) else tool).get("name"))


def _word(value: Any) -> bytes:
    """A name, where it is one: what else a client may send in its place is long, and costs time to write."""
    return _encoded(value[:EDGE]) if isinstance(value, str) else b""


def _beginning(prompt: Any) -> bytes:
    """Of a raw prompt: text, token ids, or a list of either."""
    if isinstance(prompt, str):
        return _encoded(prompt[:GROWING])
    if isinstance(prompt, Sequence) and prompt:
        first = prompt[0]
        if isinstance(first, str | list):
            return _beginning(first)
        return _encoded(str([token for token in prompt[:EDGE] if isinstance(token, int)]))
    return b""


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
