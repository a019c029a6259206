"""The gateways that are fuzzed: each dialect has to hold in every one of these settings."""

import hashlib
from pathlib import Path
from typing import Any

from tests.fuzz.grammar import ALIAS
from tests.support.nodes import MODEL

Settings = dict[str, Any]

KEY = "sk-fuzz-" + "0" * 24
_WIDE: Settings = {
    "requests_per_minute": 10**8,
    "tokens_per_minute": 10**8,
    "reasoning_tokens_per_minute": 10**8,
    "output_tokens_per_minute": 10**8,
    "input_tokens_per_minute": 10**8,
    "concurrent_requests": 500,
    "usd_per_month": 1_000_000,
    "tokens_per_day": 10**15,
}
_RULES: Settings = {
    "thinking": {
        "max_budget": 30,
        "default_budget": 10,
        "efforts": {"low": 5, "high": 20},
        "answer_reserve": 2,
        "floor": 3,
        "floor_with_tools": 4,
    },
    "output": {"default_tokens": 25, "max_tokens": 40},
}
_PRICE = {"price": {"input": 1, "output": 2}}
_BROWSERS: Settings = {"listen": {"cors_origins": ["https://a.example"], "trusted_proxies": ["127.0.0.0/8"]}}
_QUICK: Settings = {
    "timeouts": {"non_streaming": 8, "idle": 8, "first_byte": 8, "node_hang": 8, "prefill": 0, "headers": 5, "body": 5},
    "retries": {"minimum": 10_000},
    "response_secret": "x" * 20,
}


def modes(tokenizer: Path, redis: Settings) -> dict[str, Settings]:
    """Settings by name. `tokenizer` is a folder with one, `redis` the section for a server that runs."""
    return {
        "as it comes": _with(),
        "rules and limits": _with(tenant={"limits": _WIDE, "cache_salt": True}, **_RULES, **_BROWSERS),
        "over chat, hidden, budgets held by the gateway": _with(
            over_chat=True,
            tenant={"limits": _WIDE},
            thinking={"max_budget": 10, "hide_reasoning": True},
            budgets={"canary": False, "native": False},
        ),
        "over chat": _with(over_chat=True),
        "hidden, nodes hold budgets": _with(thinking={"default_budget": 5, "hide_reasoning": True}),
        "Redis": _with(tenant={"limits": _WIDE}, redis=redis, access={"stored": True}, **_RULES),
        "tokenizer": _with(tokenizer=str(tokenizer), tenant={"limits": _WIDE}, **_RULES),
        "small limits, thinking required": _with(
            tenant={"limits": {"tokens_per_minute": 10**6, "concurrent_requests": 2}},
            thinking={"mode": "required", "floor": 5, "below_floor_with_tools": "refuse", "floor_with_tools": 9},
            output={"max_tokens": 12, "on_excess": "reject"},
        ),
        "thinking forbidden, by user": _with(thinking={"mode": "forbidden"}, routing={"by_user": True}, cors=True),
    }


def _with(
    over_chat: bool = False,
    tenant: Settings | None = None,
    tokenizer: str | None = None,
    cors: bool = False,
    **settings: Any,
) -> Settings:
    model: Settings = {"name": MODEL, "aliases": [ALIAS], **_PRICE, "over_chat": over_chat}
    if tokenizer is not None:
        model["tokenizer"] = tokenizer
    key = {"sha256": hashlib.sha256(KEY.encode()).hexdigest()}
    return {
        **_QUICK,
        **(_BROWSERS if cors else {}),
        "models": [model],
        "tenants": [{"name": "a", "keys": [key], **(tenant or {})}],
        **settings,
    }
