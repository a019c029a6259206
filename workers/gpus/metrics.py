"""The readings of a node's GPUs in Prometheus' format, on a small listener of the launcher's own."""

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from workers.errors import ConfigError
from workers.gpus.watch import Watched

PREFIX = "fleetgate_worker_gpu_"
OFF = "off"
GAUGES: tuple[tuple[str, str, Callable[[Watched], float | None]], ...] = (
    ("use", "Share of the last half minute in which a kernel ran, 0 to 1.", lambda gpu: gpu.mean_use),
    ("memory_used_bytes", "Memory in use.", lambda gpu: gpu.reading.memory_used),
    ("memory_total_bytes", "Memory of the GPU.", lambda gpu: gpu.reading.memory_total),
    ("power_watts", "Power drawn.", lambda gpu: gpu.reading.power),
    ("power_limit_watts", "Power limit in force.", lambda gpu: gpu.reading.power_limit),
    ("temperature_celsius", "Temperature of the GPU.", lambda gpu: gpu.reading.celsius),
    ("lost", "1 where the driver does not reach the GPU.", lambda gpu: float(gpu.reading.lost)),
)


class GpuCollector(Collector):
    """Writes what `now` returns at each scrape. A value that a GPU does not tell has no sample."""

    def __init__(self, now: Callable[[], Sequence[Watched]]) -> None:
        """`now` returns at once: see `GpuWatch.now`."""
        self._now = now

    def collect(self) -> Iterable[Metric]:
        """Every metric of every GPU."""
        gpus = self._now()
        for name, told, value_of in GAUGES:
            gauge = GaugeMetricFamily(PREFIX + name, told, labels=("gpu", "name"))
            for gpu in gpus:
                value = value_of(gpu)
                if value is not None:
                    gauge.add_metric(_labels(gpu), value)
            yield gauge
        yield _ecc(gpus)
        xids = CounterMetricFamily(
            PREFIX + "xid_errors", "Xid errors since the launcher began, by number.", labels=("gpu", "name", "xid")
        )
        for gpu in gpus:
            for code, count in gpu.xids:
                xids.add_metric([*_labels(gpu), str(code)], count)
        yield xids


def _ecc(gpus: Sequence[Watched]) -> Metric:
    errors = CounterMetricFamily(
        PREFIX + "ecc_errors", "ECC errors of memory since the driver was loaded.", labels=("gpu", "name", "kind")
    )
    for gpu in gpus:
        for kind, count in (("corrected", gpu.reading.ecc_corrected), ("uncorrected", gpu.reading.ecc_uncorrected)):
            if count is not None:
                errors.add_metric([*_labels(gpu), kind], count)
    return errors


def _labels(gpu: Watched) -> list[str]:
    return [str(gpu.reading.index), gpu.reading.name]


def serve_metrics(host: str, port: int, now: Callable[[], Sequence[Watched]]) -> Callable[[], None]:
    """Serve the metrics at http://host:port/metrics in threads. Returns what ends that. Raises OSError."""
    registry = CollectorRegistry()
    registry.register(GpuCollector(now))
    server, thread = start_http_server(port, host, registry)

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return end


def parse_address(text: str) -> tuple[str, int] | None:
    """HOST:PORT or [HOST]:PORT; None for `off`. Raises ConfigError."""
    if text.strip().lower() == OFF:
        return None
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not host or not (port.isascii() and port.isdigit()) or not 0 <= int(port) <= 65535:
        raise ConfigError(f"--metrics {text!r}: expected HOST:PORT, e.g. 127.0.0.1:9109 or [::1]:9109, or off")
    return host, int(port)
