"""Records of nodes, as launchers write them."""

import time
from typing import Any

from workers.registration import Capacity, Registration


def record(url: str, **fields: Any) -> Registration:
    """What the node at `url` would write now, with `fields` in place of the usual."""
    now = time.time()
    told: dict[str, Any] = {"state": "ready", "capacity": Capacity(max_concurrency=8, max_model_len=4096), **fields}
    return Registration(
        node_id=f"n-{url.rpartition(':')[2]}",
        url=url,
        models=told.pop("models", ("nemotron-3-ultra",)),
        profile="fake",
        started_at=now,
        heartbeat_at=now,
        **told,
    )
