"""The head of a node's last plain answer: one that begins alike is not parsed again."""

from gateway.core.http.head_cache import HeadCache
from gateway.upstream.response_parser import ResponseHead


class NodeHeadCache:
    """Shared by the connections to one node; `familiar` is None until a plain answer has come whole in one read."""

    __slots__ = ("familiar",)

    def __init__(self) -> None:
        self.familiar: HeadCache[ResponseHead] | None = None

    def remember(self, data: bytes, head: ResponseHead) -> None:
        """`data` was exactly one answer with `head`, behind which its connection is kept alive."""
        if head.status == 200 and data[9:12] == b"200":
            fields = tuple(item for item in head.headers if item[0] != b"content-length")
            if not any(name == b"transfer-encoding" for name, _ in fields):
                self.familiar = HeadCache.of(data, ResponseHead(head.status, fields, head.content_type, head.coding))
