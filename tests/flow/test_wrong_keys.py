"""What strangers send costs a bounded number of log lines, on every route of both listeners."""

import json
from pathlib import Path

import httpx

from gateway.core.dialects import DIALECTS
from tests.flow.test_server_process import KEYS, Stage, write_config
from tests.support.gateway_process import gateway_process
from tests.support.gateways import eventually
from tests.support.nodes import scripted_node

TIMES = 12
ADMIN = ("/metrics", "/admin/fleet", "/admin/nodes", "/admin/tenants", "/admin/keys", "/admin/audit", "/admin/usage")


async def test_a_wrong_key_costs_a_line_an_address_and_minute(tmp_path: Path) -> None:
    """Wrong keys, wrong tokens and none, on all routes: a line for the first request without a good key, one where
    keys are refused unjudged, and the same of the admin listener."""
    file = tmp_path / "fleetgate.yaml"
    paths = [dialect.path for dialect in DIALECTS]
    async with scripted_node(Stage().reply) as node:
        write_config(file, [node.url], {"a": KEYS["one"]})
        async with gateway_process(
            "-c", file, FLEETGATE_ADMIN__TOKEN="a-token", FLEETGATE_ACCESS__WRONG_KEYS_PER_MINUTE="5"
        ) as gateway:
            before = len(gateway.lines)
            async with httpx.AsyncClient(timeout=30) as client:
                seen: set[int] = set()
                for number in range(TIMES):
                    for key in ({"authorization": f"Bearer fg-wrong-{number}"}, {"x-api-key": "wrong"}, {}):
                        seen |= {
                            (await client.post(gateway.url + path, json={}, headers=key)).status_code for path in paths
                        }
                        for path in ("/v1/models", "/v1/models/x", "/v1/responses/resp_1"):
                            seen.add((await client.get(gateway.url + path, headers=key)).status_code)
                        for path in ADMIN:
                            seen.add((await client.get(gateway.admin_url + path, headers=key)).status_code)
                        seen.add((await client.post(gateway.admin_url + "/admin/reload", headers=key)).status_code)
                assert seen == {401, 429}
            await eventually(lambda: gateway.events("request"))
            told = [json.loads(line)["event"] for line in gateway.lines[before:]]
            assert sorted(told) == ["admin_tokens_throttled", "request", "wrong_admin_token", "wrong_keys_throttled"]
