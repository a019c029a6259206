"""Settings of time: how long clients, nodes and a stop may take."""

from typing import Annotated

from pydantic import Field

from gateway.config.types import Seconds, Section


class Timeouts(Section):
    """In seconds. For what each one bounds see docs/configuration.md."""

    headers: Seconds = 10.0
    """Seconds in which a client's headers have to arrive; then 408."""
    body: Seconds = 60.0
    """Seconds in which a client's body has to arrive; then 408."""
    connect: Seconds = 5.0
    """Seconds for a connection to a node; then the next node is tried."""
    first_byte: Seconds = 300.0
    """Seconds until a node has begun to answer a stream, its queue and prefill included; then 504."""
    node_hang: Seconds = 30.0
    """Seconds of silence of a node on all its answers; then what waits there goes to another node."""
    prefill: Annotated[float, Field(ge=0, le=3600)] = 2.0
    """Seconds that every 1000 tokens of waiting prompts add to `first_byte`, `node_hang` and `stall`."""
    non_streaming: Seconds = 1800.0
    """Seconds for a whole plain answer of a node; then 504."""
    idle: Seconds = 120.0
    """Seconds between two pieces of a stream; then an error event ends it."""
    stall: Seconds = 20.0
    """Seconds of silence after which a stream that another node can go on with does so."""
    stall_confirmed: Seconds = 5.0
    """Seconds for the same where the whole node is silent and its own count of tokens stands still."""
    client_stall: Seconds = 300.0
    """Seconds after which a client that reads nothing counts as gone."""
    keep_alive: Annotated[float, Field(ge=0, le=86_400)] = 15.0
    """Seconds between two comments (messages: pings) on a silent stream; 0 sends none."""
    shutdown_delay: Annotated[float, Field(ge=0, le=600)] = 0.0
    """Seconds after SIGTERM in which `/ready` is 503 and requests are still served."""
    shutdown: Seconds = 120.0
    """Seconds for streams to end after that; then an error event ends them."""
