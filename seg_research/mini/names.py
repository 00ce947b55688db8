"""Made-up proper names: two syllables, pronounceable, and never the same one twice.

Every name has a number. Which split a name serves is fixed for all seeds, so that a model that
learned from the training names of any benchmark has met no test name of any other. A seed shuffles
the names of each split by an affine map; so worlds may be drawn one by one, without end and in any
order.
"""

from __future__ import annotations

import math
import re
from functools import cache
from itertools import product

from seg_research.core.seeding import derive_seed
from seg_research.data.splits import SPLITS, Split

_ONSETS = (
    "b",
    "br",
    "d",
    "dr",
    "g",
    "gl",
    "gr",
    "j",
    "k",
    "kr",
    "l",
    "m",
    "n",
    "p",
    "pl",
    "qu",
    "r",
    "t",
    "tr",
    "v",
    "w",
    "z",
)
_CODAS = ("", "l", "n", "r")
_INNER_ONSETS = ("v", "z", "w", "d", "b")
_ENDINGS = ("n", "l", "s", "r", "x")
_VOWELS, _LAST_VOWELS = ("a", "e", "i", "o", "u"), ("a", "i", "o", "u")

_REAL_WORDS = frozenset(
    [
        "brandon",
        "brazil",
        "brendan",
        "bribon",
        "darwin",
        "davis",
        "devil",
        "devin",
        "devon",
        "dildos",
        "dunbar",
        "durban",
        "duval",
        "gabon",
        "gavin",
        "global",
        "gordon",
        "jarvis",
        "jordan",
        "judas",
        "kabul",
        "kazan",
        "kelvin",
        "kevin",
        "labor",
        "landon",
        "laval",
        "levin",
        "lewis",
        "london",
        "luzon",
        "madras",
        "mandal",
        "mandir",
        "marvin",
        "medal",
        "medan",
        "melvin",
        "morbid",
        "naval",
        "pardon",
        "pedal",
        "quezon",
        "radar",
        "rival",
        "robin",
        "rowan",
        "rubin",
        "tarzan",
        "tidal",
        "tobin",
        "trabzon",
        "travis",
        "trevor",
        "tribal",
        "tudor",
        "turbin",
        "turban",
        "verbal",
        "verdun",
        "vidal",
        "wilbur",
    ]
)
_UGLY = re.compile(r"naz|nig|neg|tit|puss|anus|anal|porn|dildo|vulv|cun|jew")


@cache
def _pool() -> tuple[str, ...]:
    words = (
        "".join(parts)
        for parts in product(_ONSETS, _VOWELS, _CODAS, _INNER_ONSETS, _LAST_VOWELS, _ENDINGS)
    )
    names = [
        word.capitalize()
        for word in words
        if len(word) <= 7 and word not in _REAL_WORDS and not _UGLY.search(word)
    ]
    return tuple(names[: len(names) - len(names) % len(SPLITS)])


def num_names() -> int:
    """Return how many names each split has."""
    return len(_pool()) // len(SPLITS)


def name_of(seed: int, split: Split, number: int) -> str:
    """Return the name with this number in this split; numbers past the end of the pool start over
    within the same split.
    """
    total = num_names()
    step = derive_seed(seed, "names", "step") % total
    while math.gcd(step, total) != 1:
        step += 1
    start = derive_seed(seed, "names", "start") % total
    # Neighbours in the pool differ by one letter: dealt out in turn, each split has names of all
    # kinds.
    return _pool()[(number * step + start) % total * len(SPLITS) + SPLITS.index(split)]


def alike(name: str, steps: int) -> str:
    """Return another name of the same split that differs little, often in its ending alone."""
    pool = _pool()
    return pool[(_places()[name] + steps * len(SPLITS)) % len(pool)]


@cache
def _places() -> dict[str, int]:
    return {name: place for place, name in enumerate(_pool())}


def split_of(name: str) -> Split | None:
    """Return the split whose worlds may use a name, whatever their seed; None for other words."""
    place = _places().get(name)
    return None if place is None else SPLITS[place % len(SPLITS)]
