"""The fake's engine: places, the serial prefill server, the prefix cache."""

import asyncio
import time
from typing import Any

from tests.contract.client import node_client
from workers.fake import FakeSettings, serve_fake
from workers.fake.simulation import Engine, PrefixCache

CHAT = "/v1/chat/completions"


def ask(text: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **fields}


def test_hits_are_whole_blocks_of_a_real_prefix_and_never_the_whole_prompt() -> None:
    cache = PrefixCache(block_size=4, capacity=100)
    cache.put(range(16))
    assert cache.match(range(16)) == 12
    assert cache.match([*range(10), 99, 98, 97]) == 8
    assert cache.match([99, *range(1, 16)]) == 0
    assert (cache.queries, cache.hits) == (16 + 13 + 16, 20)


def test_a_salt_is_a_cache_of_its_own() -> None:
    cache = PrefixCache(block_size=4, capacity=100)
    cache.put(range(16), "tenant-a")
    assert cache.match(range(16), "tenant-b") == 0
    assert cache.match(range(16), "tenant-a") == 12


def test_the_least_recently_used_leaves_go_first() -> None:
    cache = PrefixCache(block_size=4, capacity=6)
    cache.put(range(16))
    cache.put(range(100, 116))
    assert len(cache) == 6
    assert cache.match(range(17)) == 8
    assert cache.match(range(100, 117)) == 16


async def test_requests_beyond_the_places_wait_and_are_served_in_turn() -> None:
    engine = Engine(FakeSettings(max_num_seqs=1))
    order: list[int] = []
    gates = [asyncio.Event() for _ in range(3)]

    async def work(i: int) -> None:
        async with engine.seat([i]):
            order.append(i)
            await gates[i].wait()

    tasks = [asyncio.create_task(work(i)) for i in range(3)]
    await asyncio.sleep(0)
    assert (len(engine.running), len(engine.waiting)) == (1, 2)
    tasks[1].cancel()
    gates[0].set()
    gates[2].set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 2]
    assert (len(engine.running), len(engine.waiting), engine.aborted) == (0, 0, 1)


async def test_a_called_request_that_leaves_hands_its_place_on() -> None:
    engine = Engine(FakeSettings(max_num_seqs=1))

    async def work() -> None:
        async with engine.seat([1]):
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(work()) for _ in range(3)]
    await asyncio.sleep(0)
    # The first ends in the next turn and calls the second, which leaves in the same turn.
    tasks[0].add_done_callback(lambda _: tasks[1].cancel())
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not engine.running
    assert tasks[2].done()
    assert not tasks[2].cancelled()


async def test_prefill_is_one_after_the_other_and_what_is_cached_takes_no_time() -> None:
    settings = FakeSettings(prefill_rate=20_000, block_size=16)
    engine = Engine(settings)

    async def first_token(ids: range) -> float:
        start = time.perf_counter()
        async with engine.seat(ids):
            return time.perf_counter() - start

    alone = await first_token(range(400))
    assert alone > 0.019
    together = await asyncio.gather(first_token(range(1000, 1400)), first_token(range(2000, 2400)))
    assert max(together) > 0.039
    assert min([await first_token(range(400)) for _ in range(10)]) < 0.015  # the machine may hold up some of them


async def test_usage_and_metrics_tell_the_cache() -> None:
    async with serve_fake(FakeSettings(block_size=16)) as fake, node_client(fake.url) as node:
        text = "a long shared opening of the conversation " * 10
        await node.ok(CHAT, ask(text))
        again = await node.ok(CHAT, ask(text))
        usage = again["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] >= usage["prompt_tokens"] - 16
        metrics = (await node.http.get("/metrics")).text
        hits = next(li for li in metrics.split("\n") if li.startswith("vllm:prefix_cache_hits_total"))
        assert float(hits.rsplit(" ", 1)[1]) == usage["prompt_tokens_details"]["cached_tokens"]


async def test_the_next_turn_finds_the_last_answer_in_the_cache() -> None:
    async with serve_fake(FakeSettings(block_size=4)) as fake, node_client(fake.url) as node:
        first = ask("hello", chat_template_kwargs={"enable_thinking": False}, return_token_ids=True)
        answer = await node.ok("/v1/chat/completions", first)
        ids = [*answer["prompt_token_ids"], *answer["choices"][0]["token_ids"]]
        again = await node.ok("/v1/completions", {"prompt": [*ids, 10], "max_tokens": 1})
        assert again["usage"]["prompt_tokens_details"]["cached_tokens"] >= len(ids) - 4


async def test_rate_paces_streams_and_plain_answers_alike() -> None:
    async with serve_fake(FakeSettings(rate=500)) as fake, node_client(fake.url) as node:
        for stream in (True, False):
            start = time.perf_counter()
            await node.post(CHAT, ask("x", stream=stream, max_tokens=30, ignore_eos=True))
            assert 0.055 < time.perf_counter() - start < 10


async def test_several_tokens_come_in_one_event() -> None:
    async with serve_fake(FakeSettings(tokens_per_event=7)) as fake, node_client(fake.url) as node:
        one = await node.chat(max_tokens=100)
        stream = await node.chat_stream(max_tokens=100, return_token_ids=True)
        sizes = [len(c["choices"][0]["token_ids"]) for c in stream.chunks[1:]]
        assert set(sizes[:-1]) == {7}
        message = one["choices"][0]["message"]
        assert (stream.joined("reasoning"), stream.joined("content")) == (message["reasoning"], message["content"])
        # The end of thinking falls into an event with text on both sides of it.
        assert any(set(c["choices"][0]["delta"]) == {"reasoning", "content"} for c in stream.chunks)


async def test_its_counters_say_one_time_of_creation_as_long_as_it_runs() -> None:
    """Gateways take another one for another process, and ask it for everything anew."""
    async with serve_fake(FakeSettings()) as fake, node_client(fake.url) as node:
        pages = [(await node.http.get("/metrics")).text for _ in range(2)]
    name = "vllm:generation_tokens_created"
    assert len({line for page in pages for line in page.splitlines() if line.startswith(name)}) == 1
