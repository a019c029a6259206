"""What a node's engine does with time and memory: places, a serial prefill server, and a prefix cache.

After the model of a replay that was used to choose the routing policy: a request waits for one of `max_num_seqs`
places, then for its turn at the prefill server, which takes (prompt - cached) / prefill_rate seconds; then its tokens
come at `rate`. The cache holds blocks keyed by everything before them, the least recently used leaves first.
"""

import asyncio
import time
from array import array
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from workers.fake.http1 import Broken
from workers.fake.settings import FakeSettings


class PrefixCache:
    """An LRU set of KV blocks. Sizes in tokens per block and blocks."""

    def __init__(self, block_size: int, capacity: int) -> None:
        self._block = block_size
        self._capacity = capacity
        self._blocks: OrderedDict[int, None] = OrderedDict()
        self.queries = 0
        self.hits = 0

    def _keys(self, ids: Sequence[int], salt: str) -> list[int]:
        data = array("I", ids).tobytes()
        width = self._block * 4
        keys, key = [], hash(salt)
        for start in range(0, len(data) - width + 1, width):
            key = hash((key, data[start : start + width]))
            keys.append(key)
        return keys

    def match(self, ids: Sequence[int], salt: str = "") -> int:
        """How many of the prompt's tokens are held: whole blocks, and never all (the last token is computed)."""
        found = 0
        for key in self._keys(ids[:-1], salt):
            if key not in self._blocks:
                break
            found += 1
        self.queries += len(ids)
        self.hits += found * self._block
        return found * self._block

    def put(self, ids: Sequence[int], salt: str = "") -> None:
        """Holds these tokens' whole blocks; evicts from the leaves up."""
        for key in reversed(self._keys(ids, salt)):
            self._blocks[key] = None
            self._blocks.move_to_end(key)
        while len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)

    def __len__(self) -> int:
        return len(self._blocks)

    def clear(self) -> None:
        """Forgets everything, as after a restart."""
        self._blocks.clear()


class Seat:
    """A running request: its prompt and what it has made so far, in token ids."""

    __slots__ = ("cached", "made", "prompt")

    def __init__(self, prompt: Sequence[int]) -> None:
        self.prompt = prompt
        self.made: list[int] = []
        self.cached = 0


class Engine:
    """Places, prefill and cache of one node; the numbers of `/metrics`."""

    def __init__(self, settings: FakeSettings) -> None:
        self.settings = settings
        self.began = time.time()
        """When it started, in seconds since 1970: what its counters were created at."""
        self.cache = PrefixCache(settings.block_size, settings.capacity)
        self.running: set[Seat] = set()
        self.waiting: deque[asyncio.Future[None]] = deque()
        self._prefill_free = 0.0
        self._promised = 0
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.finished = 0
        self.aborted = 0
        self.broken = 0

    def change(self, settings: FakeSettings) -> None:
        """Other settings from now on: where there is room for more, it is used at once."""
        self.settings = settings
        self._call_next()

    @asynccontextmanager
    async def seat(self, prompt: Sequence[int], salt: str = "") -> AsyncIterator[Seat]:
        """A place in the batch, with the prompt computed. Counted as aborted when its client leaves,
        as broken when a fault ends it."""
        seat = Seat(prompt)
        try:
            await self._enter(seat)
            await self._prefill(seat, salt)
            yield seat
        except Broken:
            self.broken += 1
            raise
        except BaseException:
            self.aborted += 1
            raise
        else:
            self.finished += 1
            self.cache.put([*prompt, *seat.made], salt)
        finally:
            self.generation_tokens += len(seat.made)
            self._leave(seat)

    @property
    def generated(self) -> int:
        """Tokens that were made, those of unfinished answers included."""
        return self.generation_tokens + sum(len(seat.made) for seat in self.running)

    async def _enter(self, seat: Seat) -> None:
        if len(self.running) + self._promised >= self.settings.max_num_seqs:
            turn = asyncio.get_running_loop().create_future()
            self.waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self._forget(turn)
                raise
            self._promised -= 1
        self.running.add(seat)

    def _forget(self, turn: "asyncio.Future[None]") -> None:
        if turn in self.waiting:
            self.waiting.remove(turn)
        elif turn.done() and not turn.cancelled():
            self._promised -= 1
            self._call_next()

    def _leave(self, seat: Seat) -> None:
        if seat in self.running:
            self.running.discard(seat)
            self._call_next()

    def _call_next(self) -> None:
        # A called request takes its place a turn of the loop later; until then the place is promised.
        while self.waiting and len(self.running) + self._promised < self.settings.max_num_seqs:
            turn = self.waiting.popleft()
            if not turn.done():
                self._promised += 1
                turn.set_result(None)

    async def _prefill(self, seat: Seat, salt: str) -> None:
        seat.cached = self.cache.match(seat.prompt, salt)
        self.prompt_tokens += len(seat.prompt)
        if self.settings.prefill_rate > 0:
            now = asyncio.get_running_loop().time()
            work = (len(seat.prompt) - seat.cached) / self.settings.prefill_rate
            self._prefill_free = max(now, self._prefill_free) + work
            await asyncio.sleep(self._prefill_free - now)
        self.cache.put(seat.prompt, salt)

    @property
    def kv_usage(self) -> float:
        """The share of the KV cache that running requests hold, 0 to 1."""
        block = self.settings.block_size
        held = sum(-(-(len(s.prompt) + len(s.made)) // block) for s in self.running)
        return min(1.0, held / self.settings.capacity)
