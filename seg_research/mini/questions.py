"""Four questions about one clip, one of each ability, each with exactly one right figure.

What can be asked depends on who is seen when; `None` means that this clip has no good set of
questions and another must be drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from seg_research.mini.knowledge import Holder, KnowledgeImage, Passage, Person, draw_holder
from seg_research.mini.motion import Actor

NUM_NAMES = 6
"""Names one set of questions uses up."""

_CLEARLY_SEEN, _SEEN, _ALWAYS = 0.9, 0.5, 0.8
_MOSTLY_HIDDEN, _HIDDEN = 0.6, 0.1
_OFFERED_FRAMES = 6


class Ability(StrEnum):
    """What a question asks for; the values are those of OK-VOS."""

    IN_VIDEO = "in-video"
    ONE_HOP = "one-hop"
    MULTI_HOP = "multi-hop"
    RELATIONAL = "relational"


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Attributes:
        text: the whole request, in the words of OK-VOS.
        target: index of the right figure in the cast.
        steps: what one would search for, in order; empty where the clip is enough.
        evidence: index of the passage that answers each step.
        clue: once everything is known, how to tell the target by what is seen, e.g. `other red`;
            empty where its look alone says it.
    """

    text: str
    ability: Ability
    target: int
    steps: tuple[str, ...]
    evidence: tuple[int, ...]
    clue: str = ""


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """Questions of a clip and the knowledge that answers them."""

    questions: tuple[Question, ...]
    passages: tuple[Passage, ...]
    images: tuple[KnowledgeImage, ...]


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen of each figure: T positions, N figures.

    Attributes:
        share_TN: visible pixels by the figure's own, in 0..1.
        hidden_TN: pixels covered by other figures by those inside the image, in 0..1; 0 where
            none is inside.
        area_N: the figure's own pixels.
        centre_TN2: position, in image heights.
    """

    share_TN: NDArray[np.float64]
    hidden_TN: NDArray[np.float64]
    area_N: NDArray[np.float64]
    centre_TN2: NDArray[np.float64]

    @property
    def offered_T(self) -> NDArray[np.int64]:
        """The positions an evenly spaced choice of six would offer."""
        last = self.share_TN.shape[0] - 1
        return np.linspace(0, last, _OFFERED_FRAMES, dtype=np.float64).astype(np.int64)


def draw_questions(
    rng: np.random.Generator, cast: Sequence[Actor], sight: Sight, names: Sequence[str]
) -> QuestionSet | None:
    """Draw the questions and write the passages."""
    askable = _askable(sight)
    relations = [r for r in _relations(cast, sight) if r.target in askable]
    if not relations or len(askable) < len(Ability):
        return None
    relation = _any_of_any_kind(rng, relations)
    free = [i for i in askable if i != relation.target]
    plain = _any_of_any_kind(rng, [d for d in _descriptions(cast, sight) if d.target in free])
    near, far = (int(i) for i in rng.permutation([i for i in free if i != plain.target])[:2])
    if sum(_partly_seen(sight, i) for i in (relation.target, plain.target, near, far)) < 2:
        return None
    return _write(rng, cast, names, _Chosen(plain, near, far, relation))


def _any_of_any_kind(rng: np.random.Generator, options: Sequence[_Way]) -> _Way:
    """Draw a kind first, so that rare kinds come up as often as common ones."""
    kinds = sorted({option.kind for option in options})
    kind = kinds[int(rng.integers(len(kinds)))]
    fitting = [option for option in options if option.kind == kind]
    return fitting[int(rng.integers(len(fitting)))]


def _write(
    rng: np.random.Generator, cast: Sequence[Actor], names: Sequence[str], chosen: _Chosen
) -> QuestionSet:
    one = draw_holder(rng, names[0], cast[chosen.near].look)
    two = draw_holder(rng, names[1], cast[chosen.far].look)
    person = Person(names[2], two)
    three = draw_holder(rng, names[3], cast[chosen.relation.anchor].look)
    # Nobody asks about the stray one; it bears a figure of the same clip, so that a wrong hit looks
    # as good as the right one.
    stray = draw_holder(rng, names[4], cast[int(rng.integers(len(cast)))].look)
    told: tuple[Holder | Person, ...] = (one, person, two, three, stray, Person(names[5], stray))
    relation = chosen.relation.words.format(anchor=three.emblem)
    return QuestionSet(
        questions=(
            _question(
                chosen.plain.words, Ability.IN_VIDEO, chosen.plain.target, (), (), chosen.plain.clue
            ),
            _question(_emblem(rng, one), Ability.ONE_HOP, chosen.near, (one.emblem,), (0,)),
            _question(
                f"the {two.kind.role} of {person.bond}",
                Ability.MULTI_HOP,
                chosen.far,
                (person.bond_step, two.emblem),
                (1, 2),
            ),
            _question(
                relation,
                Ability.RELATIONAL,
                chosen.relation.target,
                (three.emblem,),
                (3,),
                chosen.relation.clue,
            ),
        ),
        passages=tuple(entity.passage(rng) for entity in told),
        images=tuple(entity.image() for entity in told if isinstance(entity, Holder)),
    )


def _question(
    words: str,
    ability: Ability,
    target: int,
    steps: tuple[str, ...],
    evidence: tuple[int, ...],
    clue: str = "",
) -> Question:
    return Question(
        f"Please find '{words}' in the provided video.", ability, target, steps, evidence, clue
    )


def _emblem(rng: np.random.Generator, holder: Holder) -> str:
    forms = (
        f"the {holder.emblem}",
        f"the thing that is the {holder.emblem}",
        f"the {holder.kind.role} that belongs to {holder.name}",
    )
    return forms[int(rng.integers(len(forms)))]


def _askable(sight: Sight) -> list[int]:
    """Return the figures that are seen long and well enough, also on evenly offered frames, and are
    never lost behind others.
    """
    offered_TN = sight.share_TN[sight.offered_T]
    long = (sight.share_TN >= _SEEN).mean(axis=0) >= 0.3
    well = (sight.share_TN >= _CLEARLY_SEEN).sum(axis=0) >= 4
    offered = ((offered_TN >= _SEEN).sum(axis=0) >= 2) & (
        (offered_TN >= _CLEARLY_SEEN).sum(axis=0) >= 1
    )
    traceable = (sight.hidden_TN.max(axis=0) <= _MOSTLY_HIDDEN) & (
        (sight.hidden_TN > _HIDDEN).mean(axis=0) <= 0.3
    )
    return [int(i) for i in np.flatnonzero(long & well & offered & traceable)]


def _partly_seen(sight: Sight, index: int) -> bool:
    return bool((sight.share_TN[:, index] >= _SEEN).mean() <= _ALWAYS)


# --- ways to name a figure
# ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Way:
    """A way to name a target by what is seen.

    Attributes:
        words: the expression; `{anchor}` stands for the figure it is named through.
        anchor: that figure; the target itself where there is none.
        clue: as in `Question`.
    """

    kind: str
    words: str
    target: int
    anchor: int
    clue: str = ""


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The target of each question: in-video, one-hop, multi-hop, relational."""

    plain: _Way
    near: int
    far: int
    relation: _Way


def _descriptions(cast: Sequence[Actor], sight: Sight) -> list[_Way]:
    """Return the ways to name a figure by its own look; each fits one figure alone."""
    colours = Counter(actor.look.colour for actor in cast)
    shapes = Counter(actor.look.shape for actor in cast)
    found: list[_Way] = []
    for index, actor in enumerate(cast):
        look = actor.look
        found.append(_Way("look", f"the {look.words}", index, index))
        if colours[look.colour] == 1:
            found.append(
                _Way("colour", f"the only {look.colour} thing", index, index, f"only {look.colour}")
            )
        if shapes[look.shape] == 1:
            found.append(
                _Way("shape", f"the only {look.shape}", index, index, f"only {look.shape}")
            )
        for word, sign in (("largest", 1), ("smallest", -1)):
            if _stands_out(cast, sight, index, sign):
                found.append(_Way(word, f"the {word} thing", index, index, word))
    return found


def _stands_out(cast: Sequence[Actor], sight: Sight, target: int, sign: int) -> bool:
    """Tell whether the target is the largest (sign 1) or smallest (-1) by a clear margin, in area
    and in extent.
    """
    extent_N = np.log([actor.diameter for actor in cast]) * sign
    area_N = np.log(sight.area_N) * sign
    rest = [i for i in range(len(cast)) if i != target]
    margin = np.log(1.2) if sign > 0 else np.log(1.1)
    return bool(
        extent_N[target] - extent_N[rest].max() >= margin
        and area_N[target] - area_N[rest].max() >= 1.5 * margin
    )


def _relations(cast: Sequence[Actor], sight: Sight) -> list[_Way]:
    """Return the ways to name a figure through another one; each fits one figure alone."""
    found: list[_Way] = []
    colours, shapes, pairs = (
        [a.look.colour for a in cast],
        [a.look.shape for a in cast],
        [a.pair for a in cast],
    )
    for anchor, actor in enumerate(cast):
        look = actor.look
        for kind, words, trait, value, clue in (
            (
                "colour",
                "the other thing with the colour of the {anchor}",
                colours,
                look.colour,
                f"other {look.colour}",
            ),
            (
                "shape",
                "the other thing with the shape of the {anchor}",
                shapes,
                look.shape,
                f"other {look.shape}",
            ),
            (
                "pair",
                "the thing that travels with the {anchor}",
                pairs,
                actor.pair,
                f"with {look.words}",
            ),
        ):
            same = [i for i, other in enumerate(trait) if value is not None and other == value]
            if len(same) != 2 or not _seen_together(sight, *same):
                continue
            target = next(i for i in same if i != anchor)
            if kind != "pair" or _nearest_throughout(sight, anchor, target):
                found.append(_Way(kind, words, target, anchor, clue))
    return found


def _seen_together(sight: Sight, a: int, b: int) -> bool:
    offered_TN = sight.share_TN[sight.offered_T]
    return bool(((offered_TN[:, a] >= _SEEN) & (offered_TN[:, b] >= _SEEN)).sum() >= 2)


def _nearest_throughout(sight: Sight, anchor: int, target: int) -> bool:
    """Tell whether no other visible figure comes as near to the anchor as the target does."""
    distance_TN = np.linalg.norm(
        sight.centre_TN2 - sight.centre_TN2[:, anchor : anchor + 1], axis=2
    )
    others_TN = np.where(sight.share_TN > 0.2, distance_TN, np.inf)
    others_TN[:, [anchor, target]] = np.inf
    watched_T = sight.share_TN[:, anchor] > 0.2
    return bool((distance_TN[:, target] <= 0.85 * others_TN.min(axis=1))[watched_T].all())
