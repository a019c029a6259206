"""Reads what nvidia-smi, ibstat and ray print."""

import itertools
import re
from dataclasses import dataclass

from workers.preflight.capture import Gpus, Output, SeenGpu

GPU_QUERY = "name,memory.total,memory.used,driver_version,mig.mode.current"
MIB = 2**20
GPU_NAME = re.compile(r"GPU\d+")
ANSI = re.compile(r"\x1b\[[0-9;]*m")
CUDA = re.compile(r"CUDA (?:UMD )?Version:\s*([0-9]+\.[0-9]+)")


@dataclass(frozen=True, slots=True)
class Port:
    """An InfiniBand port. Rate in Gbit/s."""

    device: str
    active: bool
    rate: float
    link_layer: str


def read_gpus(query: Output, table: Output) -> Gpus | None:
    """The GPUs of `nvidia-smi --query-gpu` and the CUDA version of its table; None where either failed."""
    cuda = CUDA.search(table.stdout)
    rows = [[cell.strip() for cell in line.split(",")] for line in query.stdout.splitlines() if line.strip()]
    if not query.worked or cuda is None or not rows or any(len(row) != 5 for row in rows):
        return None
    gpus = tuple(
        SeenGpu(name=name, memory=int(total) * MIB, memory_used=int(used) * MIB, mig=mig == "Enabled")
        for name, total, used, _, mig in rows
    )
    return Gpus(source="nvidia-smi", driver=rows[0][3], cuda=cuda.group(1), gpus=gpus)


def read_topology(text: str) -> dict[tuple[int, int], str]:
    """The link of each pair of GPUs, as `nvidia-smi topo -m` names it: NV18, PIX, SYS and so on.

    The header names the columns, GPUs first, then NICs, then some with blanks in their names; on a terminal
    it is underlined with escape codes. A row is the GPU's name and one word per column.
    """
    rows = [line.split() for line in ANSI.sub("", text).splitlines() if line.strip()]
    header, *body = rows or [[]]
    count = sum(1 for word in itertools.takewhile(GPU_NAME.fullmatch, header))
    links: dict[tuple[int, int], str] = {}
    for words in body:
        if GPU_NAME.fullmatch(words[0]):
            row = int(words[0].removeprefix("GPU"))
            for column in range(row + 1, min(count, len(words) - 1)):
                links[row, column] = words[1 + column]
    return links


def read_infiniband(text: str) -> list[Port]:
    """The ports that `ibstat` lists."""
    ports: list[Port] = []
    for block in re.split(r"^CA ", text, flags=re.MULTILINE)[1:]:
        device = block.split("\n", 1)[0].strip().strip("'")
        for part in re.split(r"^\s*Port \d+:", block, flags=re.MULTILINE)[1:]:
            facts = dict(re.findall(r"^\s*([A-Za-z ]+): *(.*)$", part, flags=re.MULTILINE))
            rate = re.match(r"[0-9.]+", facts.get("Rate", "0"))
            ports.append(
                Port(
                    device,
                    facts.get("State", "").strip() == "Active",
                    float(rate.group()) if rate else 0.0,
                    facts.get("Link layer", "").strip(),
                )
            )
    return ports


def read_ray_gpus(text: str) -> float | None:
    """GPUs that `ray status` counts over the cluster; None where it tells none."""
    found = re.search(r"^\s*[0-9.]+/([0-9.]+) GPU\b", text, flags=re.MULTILINE)
    return float(found.group(1)) if found else None
