"""Made thoughts that repeat much and loop nowhere, as token ids of a made tokenizer.

Tokens are words with the space before them, single digits, runs of one punctuation character up to 16, runs of spaces
and of line ends, as usual tokenizers have them. `pieces` cuts words into three letters, as small vocabularies do. Ids
have the size of ordinary vocabularies'.

What is alike to the last token comes in the numbers that people write: three rows of a table, a matrix of zeros of
five by five, eight empty boxes of a checklist, fifty digits of a fraction. More of it is a loop by definition.
"""

import base64
import re
from collections.abc import Callable
from random import Random
from zlib import crc32

_TOKEN = re.compile(r" ?[A-Za-z]+|\d| ?([^\w\s])\1{0,15}|\n+| +")
_PIECE = re.compile(r" ?[A-Za-z]{1,3}|\d| ?([^\w\s])\1{0,15}|\n+| +")
_WORDS = re.findall(
    r"\w+",
    "the of and to in that it is was for on are as with they be at one have this from or had by but some what there we "
    "can out other were all your when up use word how said an each she which do their time if will way about many then "
    "them would write like so these her long make thing see him two has look more day could go come did my no most "
    "number sound over know water than call first people may down side been now find wait check again answer let me",
)


def ids_of(text: str, pieces: bool) -> list[int]:
    """The token ids of `text`."""
    return [100 + crc32(each[0].encode()) % 150_000 for each in (_PIECE if pieces else _TOKEN).finditer(text)]


def _sentence(rng: Random) -> str:
    words = " ".join(rng.choice(_WORDS) for _ in range(rng.randint(3, 18)))
    return words.capitalize() + rng.choice((". ", ", so ", "? ", ".\n\n"))


def prose(rng: Random) -> str:
    """Sentences, of which some come twice or thrice, in a row too, and some differ in a number alone."""
    parts: list[str] = []
    while len(parts) < 60:
        said = _sentence(rng)
        parts += [said] * rng.choice((1, 1, 1, 1, 2, 3))
        if rng.random() < 0.3:
            parts += [f"Wait, let me check case {at} again. " for at in range(rng.randint(1, 12))]
    return "".join(parts)


def table(rng: Random) -> str:
    """Tables whose rows have a number that counts and constant cells; some rows are alike, thrice at the most."""
    columns = rng.randint(2, 12)
    rule = rng.choice(("---", ":---:", "------", "--:", "-----------------"))
    lines = [f"|{'|'.join(f' {rng.choice(_WORDS)} ' for _ in range(columns))}|", f"|{'|'.join([rule] * columns)}|"]
    for row in range(rng.randint(5, 60)):
        cells = [str(row), *(rng.choice(("0", "-", "n/a", "yes", "1.0", str(rng.random()))) for _ in range(columns))]
        lines += ["| " + " | ".join(cells[:columns]) + " |"]
        if rng.random() < 0.2:
            same = f"| {' | '.join(['0'] * columns)} |"
            lines += [same] * rng.randint(1, 3)
    return "\n".join(lines)


def code(rng: Random) -> str:
    """Branches, assignments, matrices of zeros, closing brackets, rules of comments."""
    name, lines = rng.choice(_WORDS), [f"def {rng.choice(_WORDS)}(x):"]
    for at in range(rng.randint(5, 50)):
        kind = rng.randint(0, 6)
        if kind == 0:
            lines.append(f'    elif x == {at}:\n        return "{rng.choice(_WORDS)}"')
        elif kind == 1:
            lines.append(f"    {name}_{at} = {name}_{at + 1} + {name}_{at}")
        elif kind == 2:
            size = rng.randint(2, 5)
            lines.append("    m = [\n" + f"        [{', '.join(['0'] * size)}],\n" * size + "    ]")
        elif kind == 3:
            lines.append("    # " + rng.choice("-=#*") * rng.randint(20, 200))
        elif kind == 4:
            depth = rng.randint(2, 8)
            lines.append("\n".join("    " * d + "if (x) {" for d in range(depth)))
            lines.append("\n".join("    " * d + "}" for d in reversed(range(depth))))
        elif kind == 5:
            lines.append(f"    x = [{', '.join([rng.choice(('0', 'None', 'x'))] * rng.randint(3, 120))}]")
        else:
            lines.append("    pass\n" * rng.randint(1, 4))
    return "\n".join(lines)


def encoded(rng: Random) -> str:
    """Base64 with runs of zero bytes, hexadecimal with addresses, digits of fractions."""
    parts = []
    for _ in range(rng.randint(2, 8)):
        kind = rng.randint(0, 3)
        if kind == 0:
            parts.append(base64.b64encode(rng.randbytes(rng.randint(30, 600))).decode())
        elif kind == 1:
            raw = rng.randbytes(20) + bytes(rng.randint(1, 300)) + rng.randbytes(20)
            parts.append(base64.b64encode(raw).decode())
        elif kind == 2:
            begin = rng.randint(0, 1 << 20)
            fill = "00" if rng.random() < 0.5 else "ff"
            parts += [f"{begin + 16 * at:08x}: {' '.join([fill] * 16)}" for at in range(rng.randint(1, 20))]
        else:
            parts.append(f"1/{(bottom := rng.randint(3, 97))} = 0.{10**50 // bottom:050d}")
    return "\n".join(parts)


def listing(rng: Random) -> str:
    """Numbered lists of one sentence, checklists, enumerations."""
    lines: list[str] = []
    while len(lines) < 60:
        kind, said = rng.randint(0, 4), _sentence(rng).strip()
        if kind == 0:
            lines += [f"{at}. {said}" for at in range(1, rng.randint(3, 30))]
        elif kind == 1:
            lines += [said, *["- [ ]"] * rng.randint(1, 8)]
        elif kind == 2:
            lines += [f"- {rng.choice(_WORDS)}: {rng.choice(('yes', 'no'))}" for _ in range(20)]
        elif kind == 3:
            lines.append(", ".join(str(at) for at in range(rng.randint(0, 50), rng.randint(51, 150))))
        else:
            lines += [f"Step {at}: {said}\n" + "  - " + said for at in range(1, rng.randint(2, 9))]
    return "\n".join(lines)


def objects(rng: Random) -> str:
    """JSON of objects that differ in a number, of nulls, of equal points."""
    parts = []
    for _ in range(rng.randint(1, 5)):
        keys = rng.sample(_WORDS, rng.randint(1, 6))
        rows = rng.randint(2, 30)
        parts.append(
            ",\n".join(
                "  {" + f'"id": {at}, ' + ", ".join(f'"{key}": {rng.choice((0, "null", "true"))}' for key in keys) + "}"
                for at in range(rows)
            )
        )
        parts.append("[" + ", ".join(["null"] * rng.randint(2, 100)) + "]")
        parts.append(", ".join(['{"x": 0, "y": 0}'] * rng.randint(1, 3)))
    return "\n".join(parts)


def drawing(rng: Random) -> str:
    """Rules, borders, bars, blank lines: periods of one to three tokens, as long as one likes."""
    parts = []
    for _ in range(rng.randint(4, 14)):
        parts.append(rng.choice("-=*#_~. ") * rng.randint(3, 800))
        parts.append(rng.choice(("=-", "+----", "/\\", "01", "| ", "ab ")) * rng.randint(2, 200))
        parts.append("\n" * rng.randint(1, 100))
        parts += [f"{rng.choice(_WORDS)} {'#' * rng.randint(1, 60)}" for _ in range(5)]
    return "\n".join(parts)


KINDS: dict[str, Callable[[Random], str]] = {
    "prose": prose,
    "tables": table,
    "code": code,
    "base64": encoded,
    "lists": listing,
    "JSON": objects,
    "drawings": drawing,
}


def trace(number: int) -> tuple[str, list[int]]:
    """Trace `number`: its kinds, and its token ids. Every third one mixes kinds."""
    rng = Random(number)
    names = [*KINDS]
    chosen = [names[number % len(names)]] if number % 3 else rng.sample(names, 3)
    return " and ".join(chosen), ids_of("\n\n".join(KINDS[name](rng) for name in chosen), rng.random() < 0.5)
