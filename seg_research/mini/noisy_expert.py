"""An expert of the mini benchmark that reads what its searches return and sometimes makes mistakes:
the tiny model learns to imitate it.

Unlike `expert`, it learns facts from the passages it is shown and notes them down; a model can
imitate that on questions it has never met. Its mistakes are left for reinforcement learning to
correct: too many searches, none at all, or one for the wrong thing before the right one.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from seg_common.errors import UsageError
from seg_common.files import read_jsonl
from seg_research.core.geometry import Norm1000Box, Norm1000Point
from seg_research.core.seeding import derive_seed
from seg_research.data.sample import Sample, TargetOnFrame
from seg_research.episode.policy import Generation
from seg_research.episode.transcript import FinishReason, Message, Text, TokenTrace
from seg_research.mini.expert_noise import IN_DEMONSTRATIONS, MistakeRates
from seg_research.mini.folder import MiniFolder
from seg_research.mini.grid import COORDINATE_STEP
from seg_research.recipes.recipe import Recipe
from seg_research.recipes.seg_research.turns import answer_turn, keyframe_turn, search_turn

_HIT = re.compile(r"^\d+\. \(Title: (?P<title>[^)]*)\) (?P<text>.*)$", re.MULTILINE)
_ROLES = ("emblem", "mascot", "crest")
_LARGE_ENOUGH = 0.6


def on_grid(target: TargetOnFrame) -> TargetOnFrame:
    """Round a target's coordinates to the grid that the tiny tokenizer holds as single tokens; the
    box keeps an area.
    """
    step = COORDINATE_STEP

    def near(value: float) -> int:
        return round(value / step) * step

    x1, y1 = (min(near(v), 1000 - step) for v in (target.box.x1, target.box.y1))
    x2, y2 = max(near(target.box.x2), x1 + step), max(near(target.box.y2), y1 + step)
    point = Norm1000Point(near(target.point.x), near(target.point.y))
    return TargetOnFrame(Norm1000Box(x1, y1, x2, y2), point, target.area, target.max_conn_area)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a question means: the look of its target, and how to tell the target once all facts are
    known (empty: by its look).
    """

    target: str
    clue: str


def read_meanings(sample: Sample) -> Mapping[str, Meaning]:
    """Read the answers of the mini benchmark that a sample belongs to, by sample id.

    Raises:
        UsageError: it belongs to no mini benchmark.
    """
    path = MiniFolder(sample.video_path.parents[2]).answers
    if not path.is_file():
        raise UsageError(
            f"{path}: no such file; the noisy expert only knows the mini benchmark"
            " (make one: seg-research data mini --out …)"
        )
    return {
        str(row["id"]): Meaning(str(row["target"]), str(row["clue"])) for row in read_jsonl(path)
    }


@dataclass(slots=True)
class NoisyConversation:
    """One conversation: a queue of searches, what was learnt from them, then a key frame and the
    answer.
    """

    sample: Sample
    meaning: Meaning
    rng: random.Random
    mistakes: MistakeRates
    _searches: list[str] = field(default_factory=list[str])
    _notes: list[str] = field(default_factory=list[str])
    _asked: str = ""
    _spare: int = 1
    _frame: TargetOnFrame | None = None

    def __post_init__(self) -> None:
        steps = list(self.sample.steps)
        if steps and self.rng.random() < self.mistakes.no_search:
            steps = []
        elif len(steps) > 1 and self.rng.random() < self.mistakes.half_search:
            steps = steps[:1]
        elif steps and self.rng.random() < self.mistakes.wrong_search:
            steps.insert(0, self._wrong(steps))
        if self.rng.random() < self.mistakes.extra_search:
            steps.append(steps[-1] if steps else self.meaning.target)
        self._searches = steps

    def _wrong(self, steps: Sequence[str]) -> str:
        """Return what a hasty reader would look for, knowing no more than the question says."""
        role, name = steps[-1].split()[0], self._asked_name()
        if len(steps) > 1:
            return self.rng.choice([f"{role} of {name}", f"the {role}"])
        other = self.rng.choice([other for other in _ROLES if other != role])
        return self.rng.choice([f"{other} of {name}", f"the {role}"])

    def _asked_name(self) -> str:
        return next(word for word in self.sample.steps[0].split() if word[0].isupper())

    async def open(self, messages: tuple[Message, ...]) -> bool:
        """Accept any opening."""
        return True

    async def generate(self, max_tokens: int) -> Generation:
        """Say the next turn."""
        return Generation(self._next_turn(), FinishReason.STOP)

    @property
    def _knows_enough(self) -> bool:
        """Whether the searches told who is meant; a clue of someone who guesses would be a leak."""
        return not self.sample.steps or any(":" in note for note in self._notes)

    def _next_turn(self) -> str:
        if self._frame is not None:
            look = self.meaning.target
            hinted = self.meaning.clue and self._knows_enough
            return answer_turn(
                on_grid(self._frame), f"{self.meaning.clue}: {look}" if hinted else look
            )
        if self._searches:
            self._asked = self._searches.pop(0)
            return search_turn(self._asked, self._notes[-1] if self._notes else self._asked)
        target = self.sample.truth and self.sample.truth.single()
        assert target is not None
        largest = max(frame.max_conn_area for frame in target.frames.values())
        good = [
            item
            for item in target.frames.items()
            if item[1].max_conn_area >= _LARGE_ENOUGH * largest
        ]
        frame_id, self._frame = self.rng.choice(good)
        clue = [self.meaning.clue] if self.meaning.clue and self._knows_enough else []
        known = [note for note in self._notes[-1:] if ":" in note]
        if not self.sample.steps and not clue:
            known = [self.meaning.target]
        return keyframe_turn(frame_id, ". ".join([*known, *clue, f"frame {frame_id}"]))

    async def observe(self, message: Message) -> bool:
        """Read what came back; look again, once, where it does not tell."""
        if self._frame is None:
            note = _read(message, self._asked)
            if note:
                self._notes.append(note)
            elif self._asked in self.sample.steps and self._spare:
                self._spare -= 1
                self._searches.insert(0, self._asked.split()[-1])
        return True

    def tokens(self) -> TokenTrace | None:
        """Return None: nothing was tokenised."""
        return None

    async def close(self) -> None:
        """Do nothing."""


def _read(message: Message, asked: str) -> str:
    """Return the sentence that answers a search, as it stands in a passage; empty if none does."""
    shown = "".join(part.text for part in message.parts if isinstance(part, Text))
    words = asked.replace("'", " ").split()
    for hit in _HIT.finditer(shown):
        if hit["title"] not in words:
            continue
        for sentence in re.split(r"\. ?", hit["text"]):
            told = sentence.partition(", ")[0]
            if ":" in told and (len(words) == 1 or told.lower().startswith(words[0].lower())):
                return told
            if len(words) > 3 and told.startswith(hit["title"]) and " is a " not in told:
                return told
    return ""


class NoisyExpert:
    """A policy for samples of a mini benchmark."""

    def __init__(self, seed: int, mistakes: MistakeRates = IN_DEMONSTRATIONS) -> None:
        """Make other mistakes with another seed."""
        self._seed, self._mistakes = seed, mistakes
        self._meanings: dict[Path, Mapping[str, Meaning]] = {}

    def converse(self, sample: Sample, rollout: int) -> NoisyConversation:
        """Start a conversation; equal arguments and observations give equal turns.

        Raises:
            UsageError: the sample is not of a mini benchmark, or has no ground truth.
        """
        root = sample.video_path.parents[2]
        if root not in self._meanings:
            self._meanings[root] = read_meanings(sample)
        if sample.truth is None or not sample.truth.is_visible:
            raise UsageError(
                f"sample {sample.sample_id}: the noisy expert needs the ground truth"
                " of at least one offered frame"
            )
        rng = random.Random(derive_seed(self._seed, "demonstrator", sample.sample_id, rollout))
        return NoisyConversation(
            sample, self._meanings[root][sample.sample_id], rng, self._mistakes
        )


def noisy_expert(recipe: Recipe, seed: int) -> NoisyExpert:
    """Make the noisy expert (`seg-research predict --scripted noisy_expert`)."""
    return NoisyExpert(seed)
