"""A training example: text in pieces that carry loss or not, the images that it mentions, and what
examples are put together from.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from seg_research.data.splits import Split
from seg_research.mini.figures import Shape
from seg_research.mini.grid import COORDINATE_STEP, PATCH_FACTOR_PX
from seg_research.mini.knowledge import KINDS, Holder, Passage, Person
from seg_research.mini.names import alike, name_of, num_names
from seg_research.mini.sprites import Colour, Look
from seg_research.recipes.seg_research.recipe import SegResearch
from seg_research.recipes.seg_research.settings import SegResearchSettings

SquareImage = NDArray[np.uint8]
"""A square image, (H, W, 3)."""

ASSISTANT, END = "<|im_start|>assistant\n", "<|im_end|>\n"


class SplitRandom(random.Random):
    """Random numbers, and the split that names are drawn from: the training split, except to test
    what was learnt.
    """

    split = Split.TRAIN


@dataclass(slots=True)
class TrainingExample:
    """Pieces of text with the weight of their loss (0: context), and images in the order in which
    the text shows them.
    """

    pieces: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])
    images: list[SquareImage] = field(default_factory=list[SquareImage])

    def add_context(self, text: str) -> None:
        """Add context."""
        self.pieces.append((text, 0.0))

    def add_target(self, text: str, weight: float = 1.0) -> None:
        """Add text that carries loss."""
        self.pieces.append((text, weight))

    def add_image(self, image: SquareImage) -> str:
        """Add an image and return the text that stands for it."""
        self.images.append(image)
        num_tokens = (image.shape[0] // PATCH_FACTOR_PX) ** 2
        return f"<|vision_start|>{'<|image_pad|>' * num_tokens}<|vision_end|>"

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(text for text, _ in self.pieces)


@functools.cache
def system(*, with_search: bool = True) -> str:
    """Return the system message as an episode begins with it."""
    recipe = SegResearch(SegResearchSettings(brief_prompt=True))
    return f"<|im_start|>system\n{recipe.system_text(with_search=with_search)}{END}"


def user(text: str) -> str:
    """Return a user message, up to where the model begins to speak."""
    return f"<|im_start|>user\n{text}{END}{ASSISTANT}"


def request(words: str) -> str:
    """Return a question as the benchmark asks it."""
    return f"Please find '{words}' in the provided video."


def information(passages: Sequence[Passage]) -> str:
    """Return search results as the search tool lays them out."""
    lines = "".join(
        f"{rank}. (Title: {passage.title}) {passage.text}\n"
        for rank, passage in enumerate(passages, 1)
    )
    return f"<information>\n{lines}</information>"


def search(thought: str, query: str) -> str:
    """Return a search turn."""
    call = json.dumps({"name": "text_search", "query": query})
    return f"<thinking> {thought} </thinking>\n<search> {call} </search>{END}"


def region(box: Sequence[float], point: Sequence[float]) -> str:
    """Return an answer's object on the coordinate grid; box and point in thousandths."""

    def near(value: float) -> int:
        return min(1000, max(0, round(value / COORDINATE_STEP) * COORDINATE_STEP))

    left, top = (min(near(v), 1000 - COORDINATE_STEP) for v in box[:2])
    right, bottom = (
        max(near(box[2]), left + COORDINATE_STEP),
        max(near(box[3]), top + COORDINATE_STEP),
    )
    return json.dumps(
        {"bbox_2d": [left, top, right, bottom], "point_2d": [near(point[0]), near(point[1])]}
    )


def any_look(rng: SplitRandom) -> Look:
    """Draw a look."""
    return Look(rng.choice(list(Colour)), rng.choice(list(Shape)))


def any_name(rng: SplitRandom) -> str:
    """Draw a name."""
    return name_of(0, rng.split, rng.randrange(num_names()))


def like_name(rng: SplitRandom, name: str) -> str:
    """Draw a name that is easily mistaken for this one: search engines return those first."""
    return alike(name, rng.choice([-6, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6]))


def any_holder(rng: SplitRandom, look: Look | None = None) -> Holder:
    """Draw a holder of a look, by default of any."""
    return Holder(any_name(rng), rng.choice(KINDS), look or any_look(rng))


def bystander(rng: SplitRandom, asked: str, look: Look | None = None) -> Holder | Person:
    """Draw whom a search for a name returns beside the one that was meant; often the name is much
    like it.
    """
    name = like_name(rng, asked) if rng.random() < 0.6 else any_name(rng)
    holder = Holder(name, rng.choice(KINDS), look or any_look(rng))
    return holder if rng.random() < 0.7 else Person(name, any_holder(rng))


def passage_of(rng: SplitRandom, entity: Holder | Person) -> Passage:
    """Write the passage about an entity."""
    return entity.passage(np.random.default_rng(rng.getrandbits(64)))


def shuffled(rng: SplitRandom, passages: list[Passage], share: float = 0.5) -> list[Passage]:
    """Return two passages, in the other order now and then."""
    return passages[::-1] if rng.random() < share else passages


def emblem_question(rng: SplitRandom, holder: Holder) -> str:
    """Ask for what a holder bears."""
    role = holder.kind.role
    return rng.choice(
        [
            f"the {holder.emblem}",
            f"the thing that is the {holder.emblem}",
            f"the {role} that belongs to {holder.name}",
        ]
    )


def noted(holder: Holder) -> tuple[str, str]:
    """Return the note on what a holder bears, as its passage says it: up to the colon, and the
    look.
    """
    return f"{holder.kind.role.capitalize()} of {holder.name}:", f" {holder.look.words}"


def told(passage: Passage) -> str:
    """Return where a person belongs, as the passage says it."""
    return passage.text.split(". ", 1)[1].rstrip(".").partition(", ")[0]
