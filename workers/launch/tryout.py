"""Tries a healthy server out: one warm-up request, and one with a thinking budget, before gateways send to it."""

from collections.abc import Callable

from workers.launch.node_api import NodeApi
from workers.launch.plan import LaunchPlan
from workers.launch.record import NodeRecord


class TryOut:
    """What a server has to answer to be called ready, and what is remembered of it over its lives."""

    def __init__(self, plan: LaunchPlan, api: NodeApi, record: NodeRecord, say: Callable[[str], None]) -> None:
        """Nothing is asked before `run`."""
        self._plan = plan
        self._api = api
        self._record = record
        self._say = say
        self._killed_by_canary = False

    @property
    def has_killed(self) -> bool:
        """Whether a server failed at the canary, or died of it."""
        return self._killed_by_canary

    async def run(self) -> None:
        """One warm-up and one budget canary; then the record says ready, with what was found."""
        if not await self._api.answers():
            self._say("the warm-up request failed")
            return
        obedience = "not_checked"
        if self._plan.has_budgets:
            # A node can die of a field that it accepts. Seen on vLLM 0.22's CPU build: not sent a second time.
            obedience = "broken" if self._killed_by_canary else await self._send_canary()
        self._say(f"answers; thinking budget: {obedience}")
        version, length = await self._api.version(), await self._api.max_model_len()
        if await self._api.health() != "ok":  # it may have died of the canary, and nobody has seen it yet
            self._say("the server does not answer any more")
            return
        await self._record.change(
            state="ready", warm_up=True, thinking_budget=obedience, vllm_version=version, max_model_len=length
        )
        self._say(f"ready: {self._plan.advertise} serves {self._plan.served_name}")

    async def _send_canary(self) -> str:
        self._killed_by_canary = True
        obedience = await self._api.keeps_budget()
        self._killed_by_canary = obedience == "broken"
        return obedience
