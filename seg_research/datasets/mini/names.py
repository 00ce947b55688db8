"""Made-up proper names: two syllables, pronounceable, and never the same one twice.

Every name has a number. A seed shuffles the numbering by one affine map, and the residue of a number by three says which split it
serves; so worlds may be drawn one by one, without end and in any order, and a name of one split never turns up in another.
"""

from __future__ import annotations

import math
import re
from functools import cache
from itertools import product

from seg_research.core.seeding import derive_seed
from seg_research.datasets.splits import SPLITS, Split

_ONSETS = ("b", "br", "d", "dr", "g", "gl", "gr", "j", "k", "kr", "l", "m", "n", "p", "pl", "qu", "r", "t", "tr", "v", "w", "z")
_CODAS = ("", "l", "n", "r")
_INNER_ONSETS = ("v", "z", "w", "d", "b")
_ENDINGS = ("n", "l", "s", "r", "x")
_VOWELS, _LAST_VOWELS = ("a", "e", "i", "o", "u"), ("a", "i", "o", "u")

# fmt: off
_REAL_WORDS = frozenset([
    "brandon", "brazil", "brendan", "bribon", "darwin", "davis", "devil", "devin", "devon", "dildos", "dunbar", "durban", "duval",
    "gabon", "gavin", "global", "gordon", "jarvis", "jordan", "judas", "kabul", "kazan", "kelvin", "kevin", "labor", "landon", "laval",
    "levin", "lewis", "london", "luzon", "madras", "mandal", "mandir", "marvin", "medal", "medan", "melvin", "morbid", "naval",
    "pardon", "pedal", "quezon", "radar", "rival", "robin", "rowan", "rubin", "tarzan", "tidal", "tobin", "trabzon", "travis", "trevor",
    "tribal", "tudor", "turbin", "turban", "verbal", "verdun", "vidal", "wilbur",
])
# fmt: on
_UGLY = re.compile(r"naz|nig|neg|tit|puss|anus|anal|porn|dildo|vulv|cun|jew")


@cache
def _pool() -> tuple[str, ...]:
    words = ("".join(parts) for parts in product(_ONSETS, _VOWELS, _CODAS, _INNER_ONSETS, _LAST_VOWELS, _ENDINGS))
    names = [word.capitalize() for word in words if len(word) <= 7 and word not in _REAL_WORDS and not _UGLY.search(word)]
    return tuple(names[: len(names) - len(names) % len(SPLITS)])


def name_of(seed: int, split: Split, number: int) -> str:
    """Return the name with this number in this split; numbers past the end of the pool start over within the same split."""
    pool = _pool()
    step = derive_seed(seed, "names", "step") % len(pool)
    while math.gcd(step, len(pool)) != 1:
        step += 1
    # A multiple of the split count is added, so that the residue, and with it the split, is kept.
    start = derive_seed(seed, "names", "start") % len(pool)
    return pool[((number * len(SPLITS) + SPLITS.index(split)) * step + start) % len(pool)]
