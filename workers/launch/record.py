"""The node's record as it stands, and the heartbeat that keeps it alive in the registry."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from workers.gpus.telemetry import RecordGpus
from workers.launch.plan import LaunchPlan
from workers.registration import Canary, Registration
from workers.registry import Registry, RegistryUnreachable


class NodeRecord:
    """Holds the record, writes it at each change and each heartbeat. An unreachable registry is told, not fatal."""

    def __init__(
        self, plan: LaunchPlan, registry: Registry, say: Callable[[str], None], gpus: RecordGpus = lambda: None
    ) -> None:
        """Nothing is written before the first `change`. `gpus` is asked before each writing."""
        now = time.time()
        self._registry = registry
        self._say = say
        self._gpus = gpus
        self._heartbeat = plan.patience.heartbeat
        self._unreachable = False
        self._withdrawn = False
        # One write at a time: an older state must not come to the registry after a newer one.
        self._writing = asyncio.Lock()
        self._record = Registration(
            node_id=plan.node_id,
            url=plan.advertise,
            models=(plan.served_name,),
            profile=plan.profile,
            state="starting",
            capacity=plan.capacity,
            price=plan.price,
            weight=plan.weight,
            labels=dict(plan.labels),
            started_at=now,
            heartbeat_at=now,
        )

    @property
    def is_ready(self) -> bool:
        """Whether the record says ready."""
        return self._record.state == "ready"

    async def change(
        self,
        warm_up: bool | None = None,
        thinking_budget: str | None = None,
        max_model_len: int | None = None,
        **changes: Any,
    ) -> None:
        """Change fields and write the record at once. A context told by the node replaces the profile's."""
        if warm_up is not None:
            changes["canary"] = Canary.model_validate({"warm_up": warm_up, "thinking_budget": thinking_budget})
        if max_model_len is not None:
            changes["capacity"] = self._record.capacity.model_copy(update={"max_model_len": max_model_len})
        self._record = self._record.model_copy(update=changes)
        await self._write()

    async def beat(self) -> None:
        """Renew the record for ever, whatever the registry does."""
        while True:
            await asyncio.sleep(self._heartbeat)
            try:
                await self._write()
            except Exception as error:  # noqa: BLE001 - a heartbeat that ends takes a serving node out of the fleet
                self._say(f"the heartbeat failed ({type(error).__name__}: {error}), and is tried again")

    async def withdraw(self) -> None:
        """Take the record out, for good; if the registry is gone, its time to live does that."""
        async with self._writing:
            self._withdrawn = True
            try:
                await self._registry.withdraw(self._record.node_id)
            except RegistryUnreachable as error:
                self._say(f"{error}; the record expires by itself")

    async def _write(self) -> None:
        async with self._writing:
            if self._withdrawn:
                return
            self._record = self._record.model_copy(update={"heartbeat_at": time.time(), "gpus": self._gpus()})
            try:
                await self._registry.announce(self._record)
            except RegistryUnreachable as error:
                if not self._unreachable:
                    self._say(f"{error}; the node serves on, and each heartbeat retries")
                self._unreachable = True
                return
        if self._unreachable:
            self._say("registered again")
        self._unreachable = False
