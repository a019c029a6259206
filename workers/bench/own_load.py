"""Our own load generator: asyncio and httpx, in this process."""

from collections.abc import Callable

import httpx

from workers.bench.figures import Figures, make_figures
from workers.bench.ladder import GpuRounds
from workers.bench.load import Driver, Load
from workers.bench.workloads import Asker


class OwnLoad:
    """Measures loads over `client` on `model`. `run` draws arrivals."""

    name = "our own asyncio and httpx client"

    def __init__(self, client: httpx.AsyncClient, model: str, run: str) -> None:
        self._client = client
        self._model = model
        self._run = run

    async def measure(self, load: Load, asker: Asker, gpus: GpuRounds, keep: Callable[[Figures], None]) -> None:
        """Run one load."""
        driver = Driver(self._client, self._model, asker, load, f"{self._run}/{load.told}")
        try:
            await driver.run()
        finally:
            heard = driver.heard
            if heard.since:
                keep(make_figures(heard, gpus.use(heard.since, heard.until)))
