"""The recipe: the policy chooses a frame before the episode, may look at others beside it and
search, and replies with the two parts of the target.
"""

import asyncio
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

import pydantic
from PIL import Image
from pydantic import Field

from own_recipe.grammar import Look, Region, Reply, TwoPartsGrammar
from seg_common.errors import ToolError, UsageError
from seg_research.core.geometry import Norm1000Box, Norm1000Point
from seg_research.core.prediction import PredictedObject, Prediction
from seg_research.data.sample import Frame, FrameRole, GroundTruth, Sample, TargetOnFrame
from seg_research.episode.action import Action, ParsedTurn
from seg_research.episode.policy import Policy
from seg_research.episode.texts import fill, fill_text, needs, tags_in
from seg_research.episode.tool import Tool, ToolDescription, ToolFunction
from seg_research.episode.transcript import (
    ImageRef,
    Message,
    Observation,
    Outcome,
    Text,
    Transcript,
)
from seg_research.recipes.recipe import Recipe, ToolServices
from seg_research.recipes.settings import EpisodeSettings
from seg_research.recipes.texts import load_texts
from seg_research.rewards.rubric import Factor, Rubric, Term, TermRole
from seg_research.tools.search import Search, SearchKind, SearchTexts, SearchTool


@pydantic.dataclasses.dataclass(frozen=True, slots=True, config={"extra": "forbid", "strict": True})
class TwoPartsSettings(EpisodeSettings):
    """Adds `max_words`: an episode with longer thoughts on average loses reward."""

    max_words: Annotated[int, Field(ge=1)] = 40


@pydantic.dataclasses.dataclass(frozen=True, slots=True, config={"extra": "forbid"})
class TwoPartsTexts:
    """What this recipe says; see texts.yaml."""

    system: Annotated[str, needs("tools")]
    choose: Annotated[str, needs("frames", "question")]
    frame: Annotated[str, needs("frame_id", "image")]
    user: Annotated[str, needs("chosen", "image", "question")]
    fault: Annotated[str, needs("detail")]
    side: Annotated[str, needs("image", may=("frame_id",))]
    not_offered: Annotated[str, needs("frame_id")]
    search: SearchTexts


@dataclass(frozen=True, slots=True)
class SideBySide:
    """A tool of this recipe's own: a frame beside the chosen one, in one image."""

    recipe: "TwoParts"
    name: str = "side_by_side"

    def describe(self) -> ToolDescription:
        """Tell what it shows."""
        about = ToolFunction("look", "shows a frame beside the chosen one", {"frame": "integer"})
        return ToolDescription((about,), tags_in(self.recipe.texts.side), "Side by side")

    def accepts(self, action: Action) -> bool:
        """Accept a look."""
        return isinstance(action, Look)

    async def run(self, action: Action, sample: Sample) -> Observation:
        """Show both frames."""
        assert isinstance(action, Look)
        texts = self.recipe.texts
        asked = next((f for f in sample.offered if f.frame_id == action.frame_id), None)
        if asked is None:
            raise ToolError(fill_text(texts.not_offered, frame_id=str(action.frame_id)))
        size = (self.recipe.settings.view.keyframe_px // 2, self.recipe.settings.view.keyframe_px)
        both = Image.new("RGB", (2 * size[0], size[1]))
        for place, frame in enumerate((chosen_frame(sample), asked)):
            shown = await asyncio.to_thread(self.recipe.images.read, frame.path, frame.shown_size)
            both.paste(shown.resize(size), (place * size[0], 0))
        image = ImageRef(both, str(asked.path), f"frame {asked.frame_id}")
        parts = fill(texts.side, frame_id=str(asked.frame_id), image=image)
        return Observation(Message("user", parts), self.name, Outcome.OK, f"{asked.frame_id}")


class TwoParts(Recipe):
    """The recipe."""

    settings_type = TwoPartsSettings
    settings: TwoPartsSettings

    @cached_property
    def texts(self) -> TwoPartsTexts:
        """What is said to the policy."""
        own = Path(__file__).with_name("texts.yaml")
        return load_texts(TwoPartsTexts, Path(self.settings.texts or own))

    @cached_property
    def grammar(self) -> TwoPartsGrammar:
        """How turns are read and written."""
        return TwoPartsGrammar(self.texts.fault)

    @cached_property
    def rubric(self) -> Rubric:
        """Pay for the overlap and for a look, less where thoughts are long."""
        looked = Term(Looked(), 0.5, "1 if the policy looked or searched", TermRole.PROCESS)
        overlap = Term(Overlap(), 2.0, "IoU of the box around both parts with the target's")
        brief = Factor(Brief(self.settings.max_words), "max_words / words of a thought, at most 1")
        return Rubric((overlap, looked), final_claim, (brief,))

    def tools(self, services: ToolServices) -> tuple[Tool, ...]:
        """Make the tools."""
        settings = self.settings
        search = SearchTool(
            services.searcher,
            self.texts.search,
            services.escape,
            settings.search,
            settings.view.search_image_px,
        )
        return (SideBySide(self), search)

    async def prepare(self, sample: Sample, policy: Policy, rollout: int = 0) -> Sample:
        """Ask the policy which frame shows the target best; the first one if it does not say."""
        texts = self.texts
        frames = [
            part
            for frame in sample.offered
            for part in fill(texts.frame, frame_id=str(frame.frame_id), image=self._shown(frame))
        ]
        asked = fill(texts.choose, frames=frames, question=self.escape(sample.question))
        conversation = policy.converse(sample, rollout)
        try:
            chosen: Frame | None = None
            if await conversation.open((Message("user", asked),)):
                said = await conversation.generate(self.settings.limits.max_turn_tokens)
                action = self.grammar.parse(said.text).action
                wanted = action.frame_id if isinstance(action, Look) else None
                chosen = next((f for f in sample.offered if f.frame_id == wanted), None)
        finally:
            await conversation.close()
        reference = replace(chosen or sample.offered[0], role=FrameRole.REFERENCE)
        return replace(sample, frames=(*sample.frames, reference))

    def prompt(self, sample: Sample) -> tuple[Message, ...]:
        """Show the chosen frame and the question."""
        frame = chosen_frame(sample)
        offers = [f.prompt_line for about in self.descriptions for f in about.functions]
        user = fill(
            self.texts.user,
            chosen=str(frame.frame_id),
            image=self._shown(frame),
            question=self.escape(sample.question),
        )
        system = fill_text(self.texts.system, tools=" ".join(offers))
        return Message("system", (Text(system),)), Message("user", user)

    def final(self, transcript: Transcript) -> Prediction:
        """Read the parts of the reply."""
        return final_claim(transcript)

    def demonstrate(self, sample: Sample) -> list[ParsedTurn]:
        """Look at the best frame, search what is annotated, reply with its two halves."""
        target = None if sample.truth is None else sample.truth.single()
        if target is None or not target.frames:
            raise UsageError(f"sample {sample.sample_id}: the expert needs the ground truth")
        best, there = max(target.frames.items(), key=lambda item: (item[1].area, -item[0]))
        look = ParsedTurn(Look(best), f"frame {best} shows it")
        searches = [ParsedTurn(Search(SearchKind.TEXT, step), step) for step in sample.steps]
        return [look, *searches, ParsedTurn(Reply(best, halves(there)), "both halves")]

    def _shown(self, frame: Frame) -> ImageRef:
        image = self.images.read(frame.path, frame.shown_size)
        return ImageRef(image, str(frame.path), f"frame {frame.frame_id}")


def chosen_frame(sample: Sample) -> Frame:
    """Return the frame that `prepare` chose; without it, the first."""
    return (*sample.with_role(FrameRole.REFERENCE), *sample.offered)[0]


def halves(target: TargetOnFrame) -> tuple[Region, Region]:
    """Return the two halves of a target's box, each with a point on it and one off it."""
    box = target.box
    middle, height = (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2
    left, right = (
        Norm1000Box(box.x1, box.y1, middle, box.y2),
        Norm1000Box(middle, *box.as_list()[1:]),
    )
    off = (Norm1000Point(0 if box.x1 > 0 else 1000, 0 if box.y1 > 0 else 1000),)
    middles = [Norm1000Point((half.x1 + half.x2) / 2, height) for half in (left, right)]
    return Region(left, (middles[0],), off), Region(right, (middles[1],), off)


def final_claim(transcript: Transcript) -> Prediction:
    """Read what was replied; it counts on a frame that the policy has looked at."""
    seen = [
        turn.action.frame_id
        for turn, shown in transcript.exchanges()
        if isinstance(turn.action, Look) and shown is not None and shown.outcome is Outcome.OK
    ]
    last = seen[-1] if seen else None
    reply = transcript.model_turns[-1].action if transcript.model_turns else None
    if not isinstance(reply, Reply):
        return Prediction(keyframe_id=last)
    if reply.frame_id not in seen:
        return Prediction(answered=True, keyframe_id=last)
    parts = (PredictedObject(reply.frame_id, part.box, part.on, part.off) for part in reply.parts)
    return Prediction(tuple(parts), answered=True, keyframe_id=reply.frame_id)


@dataclass(frozen=True, slots=True)
class Overlap:
    """IoU of the box around both parts with the target's box on that frame; in [0, 1]."""

    name: str = "overlap"

    def __call__(self, transcript: Transcript, truth: GroundTruth) -> float:
        """Score one transcript."""
        claim, target = final_claim(transcript), truth.single()
        if not claim.objects or target is None or claim.keyframe_id not in target.frames:
            return 0.0
        boxes = [part.box for part in claim.objects if part.box is not None]
        around = Norm1000Box(
            min(b.x1 for b in boxes),
            min(b.y1 for b in boxes),
            max(b.x2 for b in boxes),
            max(b.y2 for b in boxes),
        )
        return _iou(around, target.frames[claim.keyframe_id].box)


def _iou(a: Norm1000Box, b: Norm1000Box) -> float:
    width = max(0.0, min(a.x2, b.x2) - max(a.x1, b.x1))
    height = max(0.0, min(a.y2, b.y2) - max(a.y1, b.y1))
    areas = [(box.x2 - box.x1) * (box.y2 - box.y1) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


@dataclass(frozen=True, slots=True)
class Looked:
    """1 if a tool was called with success; in [0, 1]."""

    name: str = "looked"

    def __call__(self, transcript: Transcript, truth: GroundTruth) -> float:
        """Score one transcript."""
        return float(any(shown.outcome is Outcome.OK for shown in transcript.observations))


@dataclass(frozen=True, slots=True)
class Brief:
    """1 for thoughts of at most `words` words on average, less for longer ones; in [0, 1]."""

    words: int
    name: str = "brief"

    def __call__(self, transcript: Transcript, truth: GroundTruth) -> float:
        """Score one transcript."""
        thoughts = [len((turn.thinking or "").split()) for turn in transcript.model_turns]
        return min(1.0, self.words / max(1.0, sum(thoughts) / max(1, len(thoughts))))
