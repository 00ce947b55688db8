"""What can be known about a world: who bears which emblem, who belongs where, and how one asks
about it.

A *holder* (town, team, house) has an emblem, mascot or crest, which is one of the figures. A
*person* belongs to a holder. Nothing in a name hints at the figure, and a person's passage never
describes it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seg_research.mini.sprites import Look


@dataclass(frozen=True, slots=True)
class Passage:
    """One text of the knowledge base."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class KnowledgeImage:
    """One image of the knowledge base: a figure and what it stands for."""

    subject: str
    caption: str
    look: Look


@dataclass(frozen=True, slots=True)
class Kind:
    """How a kind of holder is spoken of; `{who}` is a person."""

    noun: str
    role: str
    trait: tuple[str, ...]
    bond: str
    bond_step: str
    bond_told: tuple[str, ...]


KINDS = (
    Kind(
        noun="town",
        role="emblem",
        trait=("by a river", "in the hills", "by the sea", "near a forest"),
        bond="the town where {who} was born",
        bond_step="town where {who} was born",
        bond_told=("was born in the town of {holder}", "was born in {holder}, a small town"),
    ),
    Kind(
        noun="team",
        role="mascot",
        trait=("of rowers", "of runners", "of climbers", "of skaters"),
        bond="the team that {who} plays for",
        bond_step="team that {who} plays for",
        bond_told=("plays for the team {holder}", "plays for {holder}, an old team"),
    ),
    Kind(
        noun="house",
        role="crest",
        trait=("of bakers", "of potters", "of weavers", "of painters"),
        bond="the house that {who} serves",
        bond_step="house that {who} serves",
        bond_told=("serves the house of {holder}", "serves {holder}, an old house"),
    ),
)
_TRADES = ("baker", "sailor", "painter", "teacher", "singer", "doctor", "farmer", "writer")


@dataclass(frozen=True, slots=True)
class Holder:
    """A town, team or house and the figure that stands for it."""

    name: str
    kind: Kind
    look: Look

    @property
    def emblem(self) -> str:
        """How the figure is called, e.g. `emblem of Lurvan`; this is also what one would search
        for.
        """
        return f"{self.kind.role} of {self.name}"

    def passage(self, rng: np.random.Generator) -> Passage:
        """Tell what the figure is."""
        trait = self.kind.trait[int(rng.integers(len(self.kind.trait)))]
        opening = f"{self.name} is a {self.kind.noun} {trait}."
        fact = f"{self.kind.role.capitalize()} of {self.name}: {self.look.words}."
        return Passage(
            self.name, f"{opening} {fact}" if rng.random() < 0.5 else f"{fact} {opening}"
        )

    def image(self) -> KnowledgeImage:
        """Show what the figure is."""
        return KnowledgeImage(self.name, self.emblem, self.look)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who belongs to a holder."""

    name: str
    holder: Holder

    @property
    def bond(self) -> str:
        """The holder, named through the person, e.g. `the town where Dorvel was born`."""
        return self.holder.kind.bond.format(who=self.name)

    @property
    def bond_step(self) -> str:
        """What one would search for to learn the holder's name."""
        return self.holder.kind.bond_step.format(who=self.name)

    def passage(self, rng: np.random.Generator) -> Passage:
        """Tell where the person belongs."""
        trade = _TRADES[int(rng.integers(len(_TRADES)))]
        told = self.holder.kind.bond_told[int(rng.integers(2))].format(holder=self.holder.name)
        return Passage(self.name, f"{self.name} is a {trade}. {self.name} {told}.")


def draw_holder(rng: np.random.Generator, name: str, look: Look) -> Holder:
    """Draw the kind of a holder."""
    return Holder(name, KINDS[int(rng.integers(len(KINDS)))], look)
