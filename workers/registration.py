"""The record by which a node tells the gateways that it is there: its schema, its signature, and its place in Redis.

This is a contract between two programs that import nothing of each other. docs/registration.md describes it,
docs/registration.schema.json is its JSON Schema, tests/contract/registration-v1.json holds records that both sides
are tested with. A field may be added under the same version; a change of meaning makes a new one.

A record lives under `fleetgate:node:<node_id>` with a time to live, so a node that died without a word is forgotten.
The sorted set `fleetgate:nodes` lists the ids with the end of their life (Unix seconds), so that a gateway finds all
of them without scanning the key space.
"""

import hashlib
import hmac
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

KEY_PREFIX = "fleetgate:node:"
INDEX_KEY = "fleetgate:nodes"
HEARTBEAT_SECONDS = 5.0
# Three heartbeats may be lost before a node is forgotten.
TIME_TO_LIVE_SECONDS = 20.0
LONGEST_HEARTBEAT_SECONDS = 8.0
"""Two writes, one of them lost, and their time-outs fit into a record's life."""

State = Literal["starting", "ready", "draining", "failed"]
Obedience = Literal["obeyed", "ignored", "refused", "broken", "not_checked"]


class Part(BaseModel):
    """Base of the record's parts: frozen; unknown fields are ignored, since a newer writer may add some."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Capacity(Part):
    """What the node takes: requests at once, and the longest prompt plus answer in tokens."""

    max_concurrency: int = Field(ge=1)
    max_model_len: int = Field(ge=1)


class Cost(Part):
    """What the whole node costs, US dollars per hour."""

    usd_per_hour: float = Field(ge=0)
    kind: Literal["on_demand", "reserved", "spot"]


class Canary(Part):
    """What the launcher tried before it called the node ready.

    `thinking_budget` says whether the node keeps `thinking_token_budget`: obeyed; ignored (it thought on); refused
    (answered 400); broken (failed or died of it); not_checked (the profile has no reasoning parser).
    """

    warm_up: bool = False
    thinking_budget: Obedience = "not_checked"


class GpuState(Part):
    """One GPU of the node, as its driver tells it; null: it does not tell.

    `use` is the share of the last half minute in which a kernel ran and `memory` the share in use, both 0 to 1. `xid`
    is the number of the last Xid error since the launcher began, `ecc_uncorrected` counts since the driver was loaded.
    `lost`: the driver does not reach the GPU any more.
    """

    index: int = Field(ge=0)
    use: float | None = Field(default=None, ge=0, le=1)
    memory: float | None = Field(default=None, ge=0, le=1)
    watts: float | None = Field(default=None, ge=0)
    celsius: float | None = None
    xid: int | None = Field(default=None, ge=0)
    ecc_uncorrected: int | None = Field(default=None, ge=0)
    lost: bool = False


class Registration(Part):
    """One node. Times in Unix seconds. `drain_deadline` is when a draining node stops, None otherwise."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    node_id: str = Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$")
    url: str = Field(pattern=r"^https?://")
    models: tuple[str, ...] = Field(min_length=1)
    profile: str
    state: State
    capacity: Capacity
    price: Cost | None = None
    weight: float = Field(default=1.0, gt=0)
    labels: dict[str, str] = Field(default_factory=dict)
    vllm_version: str | None = None
    canary: Canary = Canary()
    gpus: tuple[GpuState, ...] | None = None
    started_at: float
    heartbeat_at: float
    drain_deadline: float | None = None

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    def wire(self, secret: str | None) -> str:
        """The record as JSON text, signed if there is a secret."""
        document = self.model_dump(mode="json", by_alias=True)
        if secret is not None:
            document["signature"] = sign(document, secret)
        return json.dumps(document)


def sign(document: dict[str, object], secret: str) -> str:
    """The record's signature: hex HMAC-SHA256 under the shared secret, over the record without `signature` as JSON
    with sorted keys, no blanks and non-ASCII escaped.

    A gateway also holds `heartbeat_at` against its clock, so that an old record cannot be played again.
    """
    unsigned = {key: value for key, value in document.items() if key != "signature"}
    canonical = json.dumps(unsigned, sort_keys=True, separators=(",", ":"))
    return hmac.new(secret.encode(), canonical.encode(), hashlib.sha256).hexdigest()


def json_schema() -> dict[str, object]:
    """The JSON Schema of a record on the wire."""
    schema: dict[str, object] = Registration.model_json_schema(by_alias=True)
    properties = schema["properties"]
    assert isinstance(properties, dict)
    properties["signature"] = {
        "type": "string",
        "pattern": "^[0-9a-f]{64}$",
        "description": "HMAC-SHA256 under the shared secret; absent where there is none.",
    }
    return schema
