"""How long the parts of an exchange may take."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class UpstreamTimeouts:
    """Seconds. `first_byte` is for streams, `non_streaming` for the whole of a plain answer, `idle` between two pieces
    of an answer, `keep_alive` between comments on a silent stream (infinite: none). `stall`: as `idle` for a stream
    that can be resumed, `stall_confirmed` where its node's count of tokens stands still as well. `node_hang`: silence
    of a whole node, before what waits there goes elsewhere. `prefill`: what a thousand tokens of waiting prompts add to
    `first_byte`, `node_hang` and both stalls. `shortest` is how long none of them passes."""

    connect: float = 5.0
    first_byte: float = 300.0
    node_hang: float = 30.0
    prefill: float = 2.0
    non_streaming: float = 1800.0
    idle: float = 120.0
    stall: float = 20.0
    stall_confirmed: float = 5.0
    keep_alive: float = 15.0
    shortest: float = field(init=False, repr=False, default=0.0)

    def __post_init__(self) -> None:
        silences = (self.first_byte, self.non_streaming, self.idle, self.stall, self.stall_confirmed, self.node_hang)
        shortest = min(self.keep_alive, *silences)
        object.__setattr__(self, "shortest", shortest)
