"""Text of a given length in tokens, the same for the same seed: so prompts share their beginnings where they should."""

import random
from functools import lru_cache

WORDS = ("bridge", "city", "field", "forest", "garden", "house", "island", "lake", "letter", "light", "music", "river")
"""Each is about one token to a real tokenizer, and exactly one to the fake node's."""


def text(seed: str, tokens: int) -> str:
    """`tokens` words that depend on `seed` alone."""
    return " ".join(random.Random(seed).choices(WORDS, k=max(1, tokens)))


@lru_cache(maxsize=256)
def shared_text(seed: str, tokens: int) -> str:
    """As `text`, remembered: for what many prompts begin with."""
    return text(seed, tokens)
