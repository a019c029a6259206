"""What the admin routes tell of the fleet."""

from typing import Literal

from pydantic import BaseModel


class NodeStatus(BaseModel):
    """A node as the answering gateway process sees it."""

    name: str
    url: str
    ready: bool
    models: list[str]
    in_flight: int
    last_error: str | None


class LaunchView(BaseModel):
    """How a node was started, as its record tells it; null: it does not. `max_model_len` in tokens, `price_kind`
    on_demand, reserved or spot; `warm_up` and `thinking_budget` are what its launcher found before it was ready."""

    profile: str | None
    vllm_version: str | None
    price_kind: str | None
    max_model_len: int | None
    warm_up: bool | None
    thinking_budget: str | None


class GpuView(BaseModel):
    """One GPU, as the node's record tells it; null: it does not. `use` (over the last half minute) and `memory` are 0
    to 1; `xid` is the number of its last Xid error; `lost`: its driver does not reach it."""

    index: int
    use: float | None
    memory: float | None
    watts: float | None
    celsius: float | None
    xid: int | None
    ecc_uncorrected: int | None
    lost: bool


class NodeView(BaseModel):
    """One node. `running`, `waiting`, `kv_use` (0 to 1), `tokens_per_second` and `hit_rate` (0 to 1, of prompt
    tokens) are the node's own, of all gateways together, over the last half minute; null where it does not say. Over
    all `views`: `in_flight` requests of `places`, `pending_tokens` of prompts whose first byte has not come,
    `ttft_p50` and `ttft_p99` in seconds over the latest streams and `broke_off` answers, both of the last ten
    minutes, and `seen`, how many processes see it in which state. The rest is as the answering process sees it,
    `prefill_speed` in tokens a second; `last_error` is another's where it has none; `cause` is why its breaker is
    open, and `since` the seconds for which the breaker is as it is, null before the first probe. `version` is vLLM's,
    `holds_budgets` whether its canary showed that it ends thinking at a budget; null: not known. `launch` is null for
    a node that did not register. `gpus` are those of its record, none where it tells none, and `gpu_troubles` says
    what is wrong with them."""

    name: str
    url: str
    models: list[str]
    state: Literal["ready", "warming up", "failing", "draining", "out", "unknown"]
    seen: dict[str, int]
    breaker: str
    cause: str | None
    since: float | None
    last_error: str | None
    version: str | None
    holds_budgets: bool | None
    in_flight: int
    places: int | None
    running: int | None
    waiting: int | None
    kv_use: float | None
    hit_rate: float | None
    tokens_per_second: float | None
    pending_tokens: int
    prefill_speed: float | None
    ttft_p50: float | None
    ttft_p99: float | None
    broke_off: int
    weight: float
    price: float | None
    labels: dict[str, str]
    launch: LaunchView | None
    gpus: list[GpuView]
    gpu_troubles: list[str]


class FailingView(BaseModel):
    """A dialect in which `requests` in a row have failed over `seconds`, and none was answered. `tenant`: whose all of
    them were, null where they were several tenants'. What fails may be its requests."""

    dialect: str
    requests: int
    seconds: float
    error: str
    tenant: str | None


class ModelView(BaseModel):
    """A model as the answering process sees it: whether a node can serve it, how many have said that they do, and what
    was last wrong where none can. `thinking_factor` is that of its thinking budgets, null while pressure is off. Over
    all `views` and the last ten minutes: how often an answer that broke off was `resumed`, and how many ended with an
    error instead. `waiting`: requests that wait for a place in the answering process, by class, `waiting_elsewhere` in
    others, as far as it hears of them; `expected_wait` in seconds, null where it is not known. `failing`: dialects in
    which all requests fail on it, though its nodes pass for ready."""

    name: str
    ready: bool
    nodes: int
    error: str | None
    thinking_factor: float | None
    resumed: int
    not_resumed: int
    waiting: dict[str, int]
    waiting_elsewhere: int
    expected_wait: float | None
    failing: list[FailingView]


class UnservedView(BaseModel):
    """A tenant of the config file that names a model which no node has served since the start; `meant`: one alike."""

    tenant: str
    model: str
    meant: str | None


class FleetView(BaseModel):
    """The fleet. `process` is the id of the one that answers, `gateways` how many processes share the nodes, and
    `views` how many of them this is the view of: fewer while Redis is away, or one has just begun. `redis_troubles`
    says why Redis is down, which calls it refuses and what to do, or that it lost its data within the last hour, as
    the answering process knows it."""

    process: int
    gateways: int
    views: int
    redis: bool | None
    redis_troubles: list[str]
    models: list[ModelView]
    nodes: list[NodeView]
    unserved: list[UnservedView]
