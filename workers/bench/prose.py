"""Text of a wanted length in tokens, the same for the same seed.

Sentences of plain words and no random characters: a model goes on with them in sentences of its own, so that guessed
tokens (MTP) are accepted about as often as with other prose. Text of users may be guessed better or worse.
"""

import random
from functools import lru_cache

_NOUNS = """
river engine garden letter market bridge teacher harbour winter window machine forest village doctor signal library
mountain captain kitchen journey number station farmer island picture answer question morning summer road
"""
_VERBS = "follows carries opens watches repairs crosses describes remembers measures builds leaves reaches"
_ADJECTIVES = """
old quiet narrow bright heavy early distant careful wooden open simple northern empty common steady warm
"""
NOUNS, VERBS, ADJECTIVES = _NOUNS.split(), _VERBS.split(), _ADJECTIVES.split()
WORDS_A_SENTENCE = 8
SAMPLE_SENTENCES = 100
USUAL_TOKENS_PER_WORD = 1.25


@lru_cache(maxsize=4096)
def write_prose(seed: str, words: int) -> str:
    """About `words` words (to the next whole sentence), at least one sentence."""
    chance = random.Random(seed)
    sentences = []
    for _ in range(max(1, round(words / WORDS_A_SENTENCE))):
        first, second = chance.choice(NOUNS), chance.choice(NOUNS)
        adjective, verb = chance.choice(ADJECTIVES), chance.choice(VERBS)
        sentences.append(f"The {adjective} {first} {verb} the {chance.choice(ADJECTIVES)} {second} here.")
    return " ".join(sentences)


def sample() -> tuple[str, int]:
    """A text to find out how many tokens a word is, and how many words it has."""
    words = SAMPLE_SENTENCES * WORDS_A_SENTENCE
    return write_prose("sample", words), words
