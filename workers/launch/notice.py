"""A notice that the machine ends, and the question to a metadata service that may tell one."""

import asyncio
from dataclasses import dataclass

import httpx

from workers.errors import WorkerError

METADATA_SECONDS = 5.0
MAX_BYTES = 1_000_000


class NoticeUnreadable(WorkerError):
    """A source of notices did not answer, or not in its format. It is asked again."""


@dataclass(frozen=True, slots=True)
class Notice:
    """The machine ends in `seconds` (None: as long as the drain may take). `key` differs from notice to notice."""

    reason: str
    seconds: float | None = None
    key: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a metadata service said."""

    status: int
    text: str


async def ask(method: str, url: str, headers: dict[str, str], seconds: float = METADATA_SECONDS) -> Answer:
    """One question to a metadata service. Raises NoticeUnreadable where no whole answer comes within `seconds`."""
    # No proxies: the service is this machine's own, whatever the environment says about the world outside.
    client = httpx.AsyncClient(timeout=httpx.Timeout(seconds, connect=METADATA_SECONDS), trust_env=False)
    try:
        async with asyncio.timeout(seconds), client, client.stream(method, url, headers=headers) as response:
            return Answer(response.status_code, await _body(response))
    except (TimeoutError, httpx.TimeoutException):
        raise NoticeUnreadable(f"{url} does not answer") from None
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, UnicodeError) as error:
        raise NoticeUnreadable(f"{url} cannot be asked ({str(error) or type(error).__name__})") from error


async def _body(response: httpx.Response) -> str:
    data = b""
    async for chunk in response.aiter_bytes():
        data += chunk
        if len(data) > MAX_BYTES:
            raise NoticeUnreadable(f"{response.url} answers more than {MAX_BYTES:,} bytes")
    return data.decode(errors="replace")
