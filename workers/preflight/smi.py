"""Reads what nvidia-smi, ibstat, fi_info and ray print."""

import itertools
import re
from dataclasses import dataclass

from workers.preflight.capture import Gpus, Output, SeenGpu

GPU_QUERY = "name,memory.total,memory.used,driver_version,mig.mode.current"
MIB = 2**20
GPU_NAME = re.compile(r"GPU\d+")
ANSI = re.compile(r"\x1b\[[0-9;]*m")
PLAIN_NUMBER = re.compile(r"\d+(\.\d+)?")
EFA_DOMAIN = re.compile(r"^\s*domain:\s*(\S+?)(?:-rdm|-dgrm)?\s*$", re.MULTILINE)
CUDA = re.compile(r"CUDA (?:UMD )?Version:\s*([0-9]+\.[0-9]+)")


@dataclass(frozen=True, slots=True)
class Port:
    """A port that speaks RDMA: InfiniBand or RoCE by its link layer. Rate in Gbit/s."""

    active: bool
    rate: float
    link_layer: str


def read_gpus(query: Output, table: Output) -> Gpus | None:
    """The GPUs of `nvidia-smi --query-gpu`, None where that failed, and the CUDA version of its table."""
    cuda = CUDA.search(table.stdout)
    rows = [[cell.strip() for cell in line.split(",")] for line in query.stdout.splitlines() if line.strip()]
    if not query.worked or not rows or any(len(row) != 5 for row in rows):
        return None
    gpus = tuple(
        SeenGpu(name=name, memory=_mib(total), memory_used=_mib(used), mig=mig == "Enabled")
        for name, total, used, _, mig in rows
    )
    return Gpus(source="nvidia-smi", driver=rows[0][3], cuda=cuda.group(1) if cuda else "not told", gpus=gpus)


def read_visible(setting: str | None) -> tuple[int, ...] | None:
    """The GPUs that CUDA_VISIBLE_DEVICES names, by index; None where it is not set or holds UUIDs.

    As CUDA reads it: empty hides all, and nothing counts behind the first word that is no index.
    """
    if setting is None:
        return None
    words = [word.strip() for word in setting.split(",")]
    if words[0].upper().startswith(("GPU-", "MIG-")):
        return None
    indices = itertools.takewhile(lambda word: word.isascii() and word.isdigit(), words)
    return tuple(int(word) for word in indices)


def _mib(cell: str) -> int | None:
    """Bytes of a cell in MiB; None for [N/A], [Not Supported] and everything else that is no number."""
    return int(float(cell) * MIB) if PLAIN_NUMBER.fullmatch(cell) else None


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
    """The ports that `ibstat` lists: InfiniBand ones, and RoCE ones with the link layer Ethernet."""
    ports: list[Port] = []
    for block in re.split(r"^CA ", text, flags=re.MULTILINE)[1:]:
        for part in re.split(r"^\s*Port \d+:", block, flags=re.MULTILINE)[1:]:
            facts = dict(re.findall(r"^\s*([A-Za-z ]+): *(.*)$", part, flags=re.MULTILINE))
            rate = re.match(r"[0-9.]+", facts.get("Rate", "0"))
            ports.append(
                Port(
                    facts.get("State", "").strip() == "Active",
                    float(rate.group()) if rate else 0.0,
                    facts.get("Link layer", "").strip(),
                )
            )
    return ports


def read_efa_devices(text: str) -> set[str]:
    """The Elastic Fabric Adapters that `fi_info -p efa` lists; each is named once per endpoint type."""
    return set(EFA_DOMAIN.findall(text))


def read_ray_gpus(text: str) -> float | None:
    """GPUs that `ray status` counts over the cluster; None where it tells none."""
    found = re.search(r"^\s*[0-9.]+/([0-9.]+) GPU\b", text, flags=re.MULTILINE)
    return float(found.group(1)) if found else None
