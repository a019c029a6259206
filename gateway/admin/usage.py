"""The admin route for usage: what tenants, models and keys used, and what it cost."""

import time
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from gateway.admin.json_pages import write_array
from gateway.admin.problems import AdminError
from gateway.admin.schemas import moment
from gateway.config.access import Moment
from gateway.core.usage.cost import NANO
from gateway.core.usage.ledger import DAY, HOUR
from gateway.usage.report import MAX_ROWS, ReportRow, TooManyRows, UsageReport, total_of
from gateway.usage.request_lookup import RequestLookup

WEEK = 7 * DAY
MAX_BUCKETS = 200_000
"""Hours or days times tenants that one question may go through."""


def not_stored() -> AdminError:
    return AdminError(409, "This gateway does not store usage", "set redis.url and usage.stored: true")


By = Literal["time", "tenant", "model", "key"]


class UsageRow(BaseModel):
    """Sums of what the question divides by; tokens as they were charged. `wasted` were made and nobody got them."""

    time: datetime | None = None
    tenant: str | None = None
    model: str | None = None
    key: str | None = None
    requests: int
    errors: int
    input: int
    cached: int
    output: int
    reasoning_tokens: int
    thinking: Annotated[int, Field(deprecated="use reasoning_tokens")]
    wasted: int
    cost_usd: float

    @classmethod
    def of(cls, row: ReportRow) -> "UsageRow":
        sums = row.sums._asdict()
        cost = sums.pop("cost") / NANO
        return cls(
            **sums,
            thinking=row.sums.reasoning_tokens,
            cost_usd=cost,
            time=moment(row.at) if row.at else None,
            tenant=row.tenant or None,
            model=row.part.model or None,
            key=row.part.key or None,
        )


class UsageResponse(BaseModel):
    """Usage from `since` until `until`, in whole hours or days (UTC)."""

    since: datetime
    until: datetime
    per: Literal["hour", "day"]
    rows: list[UsageRow]
    total: UsageRow


class UsageRoutes:
    """`report` and `lookup` are None where no usage is kept."""

    tag: ClassVar[str] = "usage"
    about: ClassVar[str] = "What was used, and what it cost."

    def __init__(self, report: UsageReport | None, lookup: RequestLookup | None = None) -> None:
        self._report = report
        self._lookup = lookup

    def add_to(self, router: APIRouter) -> None:
        router.get("/usage", response_model=UsageResponse)(self.show_usage)
        router.get("/requests/{request_id:path}")(self.show_request)

    async def show_request(self, request_id: str) -> list[dict[str, Any]]:
        """The usage records of one request, by the id that its answer had in x-request-id; the newest first."""
        if self._lookup is None:
            raise not_stored()
        found = await self._lookup.find(request_id)
        if not found:
            remedy = (
                "the last usage.records are kept, and written once a second; refused keys have none: `fleetgate logs`"
            )
            raise AdminError(404, f"No record of {request_id!r}", remedy)
        return found

    async def show_usage(
        self,
        tenant: Annotated[list[str] | None, Query(description="Only these; default: all.")] = None,
        since: Annotated[Moment | None, Query(description="Default: seven days ago.")] = None,
        until: Annotated[Moment | None, Query(description="Default: now.")] = None,
        per: Annotated[Literal["hour", "day"], Query(description="The interval of the rows.")] = "day",
        by: Annotated[list[By] | None, Query(description="The columns to group by.")] = None,
    ) -> Response:
        """Sums of what was used. Times are rounded outwards to whole hours or days of UTC."""
        if self._report is None:
            raise not_stored()
        size = HOUR if per == "hour" else DAY
        end = time.time() if until is None else until.timestamp()
        start = end - WEEK if since is None else since.timestamp()
        names = tenant or await self._report.tenants()
        if start >= end:
            raise AdminError(422, "since is not before until", "give an earlier since", field="since")
        if (end - start) / size * max(1, len(names)) > MAX_BUCKETS:
            remedy = "choose a shorter period, per=day, or fewer tenants"
            raise AdminError(422, "The report is too large", remedy, field="since")
        try:
            rows = await self._report.rows(names, start, end, size, frozenset(by or ("tenant", "model")))
        except TooManyRows:
            remedy = "choose a shorter period, or fewer columns to group by"
            raise AdminError(422, f"The report has more than {MAX_ROWS} rows", remedy, field="by") from None
        span = (moment(start // size * size), moment(-(-end // size) * size))
        bare = UsageResponse(since=span[0], until=span[1], per=per, rows=[], total=UsageRow.of(await total_of(rows)))
        written = await write_array(map(UsageRow.of, rows))
        body = bare.model_dump_json().replace('"rows":[]', f'"rows":{written}', 1)
        return Response(body, media_type="application/json")
