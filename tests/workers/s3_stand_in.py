"""A server that speaks as much of S3's REST API as a download needs: ListObjectsV2 by pages, HEAD and GET with ranges.

Path-style addresses, as boto3 uses them for an endpoint that is an IP address.
"""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.workers.threaded_server import serve_routes

PAGE = 3
"""Keys of one answer to a listing: S3 has 1000."""
CHANGED = 1_790_000_000


class Buckets:
    """Objects by bucket and key. `faults` is what befalls each request: a status, `cut`, or nothing (an empty word)."""

    def __init__(self, objects: dict[str, dict[str, bytes]]) -> None:
        self.objects = objects
        self.faults: Iterator[str] = iter(())
        self.denied = False
        self.gets: list[str] = []
        self.url = ""
        self.lock = threading.Lock()


@contextmanager
def serve_s3(buckets: Buckets) -> Iterator[Buckets]:
    """Run the server on a free port of 127.0.0.1."""
    with serve_routes(_routes(buckets)) as buckets.url:
        yield buckets


def _routes(buckets: Buckets) -> type[BaseHTTPRequestHandler]:
    class Routes(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            url = urlsplit(self.path)
            _, bucket, key = [*unquote(url.path).split("/", 2), ""][:3]
            with buckets.lock:
                self.fault = next(buckets.faults, "")
            if self.fault.isdigit():
                return self.refuse(int(self.fault), "SlowDown")
            if buckets.denied or not self.headers.get("Authorization", "").startswith("AWS4-HMAC-SHA256 "):
                return self.refuse(403, "AccessDenied")
            if bucket not in buckets.objects:
                return self.refuse(404, "NoSuchBucket")
            if not key:
                return self.send(200, _listing(bucket, buckets.objects[bucket], parse_qs(url.query)), {})
            if key not in buckets.objects[bucket]:
                return self.refuse(404, "NoSuchKey")
            return self.send_object(key, buckets.objects[bucket][key])

        def send_object(self, key: str, data: bytes) -> None:
            headers = {
                "ETag": f'"{hashlib.md5(data).hexdigest()}"',
                "Last-Modified": formatdate(CHANGED, usegmt=True),
                "Accept-Ranges": "bytes",
            }
            if self.command == "GET":
                buckets.gets.append(key)
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            if wanted is None:
                return self.send(200, data, headers)
            start, end = int(wanted.group(1)), int(wanted.group(2) or len(data) - 1)
            headers["Content-Range"] = f"bytes {start}-{min(end, len(data) - 1)}/{len(data)}"
            return self.send(206, data[start : end + 1], headers)

        def refuse(self, status: int, code: str) -> None:
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
            self.send(status, text.encode(), {"Content-Type": "application/xml"})

        def send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            if self.fault == "cut":
                self.close_connection = True
                data = data[: len(data) // 2]
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Silence."""

    return Routes


def _listing(bucket: str, objects: dict[str, bytes], query: dict[str, list[str]]) -> bytes:
    assert query.get("list-type") == ["2"]
    prefix = query.get("prefix", [""])[0]
    keys = sorted(key for key in objects if key.startswith(prefix))
    start = int(query.get("continuation-token", ["0"])[0])
    page, rest = keys[start : start + PAGE], keys[start + PAGE :]
    following = f"<NextContinuationToken>{start + PAGE}</NextContinuationToken>" if rest else ""
    contents = "".join(
        f"<Contents><Key>{escape(key)}</Key><LastModified>2026-09-21T13:33:20.000Z</LastModified>"
        f"<Size>{len(objects[key])}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        for key in page
    )
    return (
        "<?xml version='1.0' encoding='UTF-8'?><ListBucketResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>"
        f"<Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>"
        f"<MaxKeys>{PAGE}</MaxKeys><IsTruncated>{'true' if rest else 'false'}</IsTruncated>{following}{contents}"
        "</ListBucketResult>"
    ).encode()
