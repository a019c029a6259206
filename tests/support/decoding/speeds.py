"""How fast nodes are that decode, and how large their caches: figures of others, none measured here."""

from typing import NamedTuple


class NodeSpeed(NamedTuple):
    """Times in seconds, `prefill` in prompt tokens a second, `kv` and `chunk` in tokens.

    The default is an 8x H200 node with NVFP4 weights. `fixed` and `per_sequence` go through two points: 10
    conversations at 58.7 tokens/s each (NVIDIA Dynamo's day-0 recipe, measured) and 32 (as many as its recipe 1.4.0
    carries) at the deployment guide's upper estimate of 900 tokens/s a node. `per_kv_token`: 26 KiB (`fleetgate-worker
    plan`) at 60% of 8 x 4.8 TB/s. `kv`: what the planner leaves for KV, less 32 Mamba states. `chunk` is recipe 1.4.0's
    `max-num-batched-tokens`; `prefill` the replay's.
    """

    fixed: float = 0.0087
    per_sequence: float = 0.000837
    per_kv_token: float = 1.16e-9
    prefill: float = 8000.0
    chunk: int = 24576
    sequences: int = 32
    kv: int = 23_000_000

    def step(self, decoding: int, held: float = 0.0) -> float:
        """Seconds of one step that computes no prompt."""
        return self.fixed + self.per_sequence * decoding + self.per_kv_token * held


H200 = NodeSpeed()

B200 = NodeSpeed(fixed=0.0065, per_sequence=0.000295, per_kv_token=7.2e-10, sequences=47, kv=20_000_000)
"""4x B200 with NVFP4: 20 conversations at 80.6 tokens/s each (day-0 recipe), 47 of them at most (recipe 1.4.0). That
the time of a step grows for each of them by a third of the H200's is an assumption."""

DENSE = NodeSpeed(0.0158, 0.000128, 1.63e-8, 3900.0, 8192, 64, 1_080_000)
"""8x H100 with a dense 253B model in FP8 (`nemotron-ultra-253b-8xh100-fp8`), whose KV cache is what is short: 256 KiB a
token. Weights and KV are read at 60% of 8 x 3.35 TB/s, arithmetic runs at a quarter of the data sheet's."""
