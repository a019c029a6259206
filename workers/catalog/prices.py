"""What GPU hours and tokens of an API cost, by date, and which of the rows hold on a day."""

import calendar
import datetime
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from workers.catalog.facts import Fact, parse, read_document, read_yaml
from workers.errors import ConfigError

PriceKind = Literal["on_demand", "reserved", "spot"]
PRICE_KINDS: tuple[PriceKind, ...] = ("on_demand", "reserved", "spot")
OLD_DAYS = 60
"""GPU prices move by several percent a month; an older one is worth a look before a machine is rented."""


def _text_of_date(given: Any) -> Any:
    return given.isoformat() if isinstance(given, datetime.date) else given


def _checked_date(text: str) -> str:
    day_of(text)
    return text


def day_of(text: str) -> datetime.date:
    """The day of `2026-11-30`; of `2026-11` the month's last. Raises ValueError for anything else."""
    found = re.fullmatch(r"(\d{4})-(\d{2})(?:-(\d{2}))?", text, re.ASCII)
    if found is None:
        raise ValueError(f"{text!r} is no date: use 2026-11-30 or 2026-11")
    year, month = int(found[1]), int(found[2])
    try:
        return datetime.date(year, month, int(found[3] or calendar.monthrange(year, month)[1]))
    except ValueError as wrong:
        raise ValueError(f"{text!r} is no date: {wrong}") from wrong


Seen = Annotated[str, BeforeValidator(_text_of_date), AfterValidator(_checked_date)]
LEAST_USD, MOST_USD = 1e-6, 1e6
"""Prices outside of these are slips of the pen, and would divide to nothing."""

Usd = Annotated[float, Field(ge=LEAST_USD, le=MOST_USD)]


class Price(Fact):
    """What one GPU costs per hour in US dollars, as seen on `date` (a day or a month) at `source`."""

    kind: PriceKind
    usd_per_gpu_hour: Usd
    date: Seen
    source: str


class GpuPrice(Price):
    """A row of the list: the price of one kind of GPU."""

    gpu: str


class ApiPrice(Fact):
    """US dollars per million tokens at an API. `cached` None: cached input is charged as input. `input` None: only the
    output is compared, as the deployment guide does.
    """

    name: str
    model: str = ""
    input: float | None = Field(default=None, ge=0, le=MOST_USD)
    cached: float | None = Field(default=None, ge=0, le=MOST_USD)
    output: Usd
    date: Seen
    source: str

    def usd(self, fresh: float, cached: float, output: float) -> float:
        """US dollars for so many tokens: prompt that was computed, prompt from the cache, output."""
        full = self.input or 0.0
        reads = fresh * full + cached * (full if self.cached is None else self.cached)
        return (reads + output * self.output) / 1e6


class PriceList(Fact):
    """All rows of a file."""

    gpu_hours: tuple[GpuPrice, ...] = ()
    apis: tuple[ApiPrice, ...] = ()


def load_prices(own: Path | None = None) -> PriceList:
    """The rows beside this module, and behind them those of an operator's file. Raises ConfigError with the file."""
    built_in = files("workers.catalog") / "prices.yaml"
    rows: PriceList = parse(PriceList, read_yaml(built_in.read_text()), built_in.name)
    if own is None:
        return rows
    document = read_document(own)
    more: PriceList = parse(PriceList, {} if document is None else document, str(own))
    return PriceList(gpu_hours=rows.gpu_hours + more.gpu_hours, apis=rows.apis + more.apis)


def newest_by_kind(rows: Iterable[Price], day: datetime.date) -> tuple[Price, ...]:
    """Of each kind the newest row that was known on `day`, on demand first; of two of one date the later row."""
    known: dict[PriceKind, Price] = {}
    for row in sorted(rows, key=lambda row: day_of(row.date)):
        if day_of(row.date) <= month_end(day):
            known[row.kind] = row
    return tuple(known[kind] for kind in PRICE_KINDS if kind in known)


def newest_apis(rows: Sequence[ApiPrice], model: str, day: datetime.date) -> tuple[ApiPrice, ...]:
    """Of each API that serves `model` the newest row that was known on `day`."""
    known: dict[str, ApiPrice] = {}
    for row in sorted(rows, key=lambda row: day_of(row.date)):
        if row.model == model and day_of(row.date) <= month_end(day):
            known[row.name] = row
    return tuple(known.values())


def month_end(day: datetime.date) -> datetime.date:
    """The last day of a day's month: a price that is dated by its month is known in all of it."""
    return day.replace(day=calendar.monthrange(day.year, day.month)[1])


def age_days(date: str, today: datetime.date) -> int:
    """Days since a price was seen; 0 for one of this month, or of the future."""
    return max(0, (today - day_of(date)).days)


def checked_usd(given: float | None) -> float | None:
    """A price from the command line as it is. Raises ConfigError for one that is no amount of dollars (nan, inf)."""
    if given is not None and not (given == 0 or LEAST_USD <= given <= MOST_USD):
        raise ConfigError(f"--price: {given} is no amount of US dollars per GPU hour")
    return given


def price_kind(text: str) -> PriceKind:
    """The kind of that name, written with a dash or an underscore. Raises ConfigError with the known names."""
    for kind in PRICE_KINDS:
        if text.strip().lower().replace("-", "_") == kind:
            return kind
    raise ConfigError(f"unknown kind of price {text!r}; known: on-demand, reserved, spot")
