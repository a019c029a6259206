"""What is told of one resume, in the request log and in metrics."""

from dataclasses import dataclass


@dataclass(slots=True)
class ResumeNote:
    """`cause`: why the answer broke off (an attempt's outcome, as in `attempts`). `source`, `target`: the names of the
    nodes; no target where none was found. `token`: output tokens that the answer had. `pause`: seconds from the break
    to the next token. `recomputed`: tokens of prompt and answer that the new node computed again. `outcome`: `resumed`,
    `broken` again before a token came, or `refused`."""

    cause: str
    source: str
    token: int
    target: str | None = None
    pause: float | None = None
    recomputed: int | None = None
    outcome: str = "refused"
