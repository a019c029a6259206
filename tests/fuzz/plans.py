"""Bodies without a socket: read, counted, planned and made into what each kind of node is sent. Ten times as many."""

import asyncio
import random

from gateway.core.bodies import parse_body
from gateway.core.dialects import DIALECTS, Ask, Dialect
from gateway.core.errors import GatewayError
from gateway.core.fleet.capabilities import BELIEVED, UNKNOWN, Capabilities
from gateway.core.limits.metering import Meter, plan_amounts
from gateway.core.plan import IdMinting, make_plan
from gateway.core.routing.conversations import KEY_BYTES, ConversationNaming, conversation_of
from gateway.core.thinking.policy import Policy
from gateway.core.upstream.node_request import node_request
from gateway.counting.conversation import NotCountable
from gateway.counting.conversation import conversation_of as counted_conversation
from tests.fuzz.grammar import draw
from tests.fuzz.trial import Trial
from tests.support.nodes import MODEL
from tests.support.plans import changed

NODES = (
    UNKNOWN,
    BELIEVED,
    Capabilities(native_budget=False, native_off=False, version=(0, 22), think_start=(5,), think_end=(6,), window=4096),
    Capabilities(native_budget=False, splits_reasoning=False, think_end=(6,), marker_shown=True),
    Capabilities(native_budget=True, native_off=True, version=(0, 32), splits_reasoning=True, window=64),
)
_DIALECTS = {dialect.path: dialect for dialect in DIALECTS}
_MINTING = IdMinting(b"k" * 32, b"n" * 12, "a")


async def fuzz_plans(trial: Trial, numbers: range) -> None:
    """Plan the bodies with these numbers by the rules of the trial's mode."""
    terms = trial.gateway.app.pipeline.settings.policies.of(None, MODEL)
    for number in numbers:
        rng = random.Random(f"{trial.seed} {number}")
        path, raw = draw(rng)
        dialect = _DIALECTS[path]
        try:
            _plan(dialect, dialect.read(raw), terms, rng)
        except GatewayError:
            trial.done["refused"] += 1
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            trial.blame("plans", number, raw, _told(path, error))
        if number % 100 == 0:
            await asyncio.sleep(0)  # the gateway probes its node meanwhile


def _plan(dialect: Dialect, ask: Ask, terms: Policy | None, rng: random.Random) -> None:
    minting = _MINTING if dialect.mints_ids else None
    salt, window = rng.choice((None, "salt")), rng.choice((None, 64, 4096))
    headers = {b"session-id": b"s"} if rng.random() < 0.5 else {}
    assert len(conversation_of(ask.body, headers, "a", ConversationNaming(by_user=rng.random() < 0.5))) == KEY_BYTES
    plan = make_plan(ask, dialect, MODEL, minting, None, rng.choice((None, terms)), window, 4.0, salt)
    assert min(plan_amounts(plan, Meter(), 4096)) >= 0
    assert plan.output_tokens is None or plan.output_tokens >= 0
    over_chat = changed(plan, over_chat=True)
    for planned in (plan, over_chat, changed(plan, grant=plan.grant.hidden())):
        try:
            sending = node_request(planned, b"node", rng.choice(NODES))
        except GatewayError:
            continue
        sending.stream_filter()
        _count(parse_body(sending.body))


def _count(chat: dict[str, object]) -> None:
    """As a counter would see it: what cannot be counted says so, and nothing else."""
    for in_parts in (False, True):
        try:
            counted_conversation(chat, in_parts)
        except NotCountable:
            continue


def _told(path: str, error: Exception) -> str:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    code = None if frame is None else frame.tb_frame.f_code
    where = "" if code is None or frame is None else f"{code.co_filename}:{frame.tb_lineno} in {code.co_name}"
    return f"{path}: {type(error).__name__}: {str(error)[:200]} at {where}"
