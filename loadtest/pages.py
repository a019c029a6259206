"""What the mock node answers to GET: what gateways and routers ask a node before they trust it."""

import json

from loadtest.answers import MODEL, response

_METRICS = f"""\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="{MODEL}"}} %d
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{engine="0",model_name="{MODEL}"}} 0.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{{engine="0",model_name="{MODEL}"}} 0.0
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{{engine="0",model_name="{MODEL}"}} 0.0
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{{engine="0",model_name="{MODEL}"}} 0.0
"""

CARD = {"id": MODEL, "object": "model", "owned_by": "vllm", "root": MODEL, "max_model_len": 262_144}
ABOUT = {"model_path": MODEL, "served_model_name": MODEL, "model_type": "nemotron", "is_generation": True}
JSON_PAGES: dict[str, object] = {
    "/v1/models": {"object": "list", "data": [CARD]},
    "/version": {"version": "0.32.0"},
    "/get_model_info": ABOUT,
    "/model_info": ABOUT,
    "/get_server_info": ABOUT,
    "/server_info": ABOUT,
}
PAGES = {path: response(200, json.dumps(page).encode()) for path, page in JSON_PAGES.items()} | {
    "/health": response(200, b""),
}
NOT_FOUND = response(404, b'{"detail":"Not Found"}')
BAD_REQUEST = response(400, b'{"error":{"message":"bad body","type":"BadRequestError","param":null,"code":400}}')


def metrics(running: int) -> bytes:
    """The page of metrics. `running`: streams that are under way; a gateway may go by them."""
    return response(200, (_METRICS % running).encode(), "text/plain; version=0.0.4")
