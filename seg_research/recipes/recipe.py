"""What makes one system differ from another, as one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from seg_common.errors import UsageError
from seg_research.core.video import shown_image
from seg_research.data.sample import Sample
from seg_research.episode.episode import Episode, Parse
from seg_research.episode.escaping import escape_untrusted
from seg_research.episode.limits import Limits
from seg_research.episode.transcript import ImageRef, Message, Text
from seg_research.recipes.hooks import TrainerHooks
from seg_research.recipes.seg_research.prompt import IMAGE_PLACEHOLDER, build_messages
from seg_research.rewards.rubric import Rubric
from seg_research.tools.base import Tool
from seg_research.tools.search import Searcher


@dataclass(frozen=True, slots=True)
class ViewSizes:
    """Sizes at which pictures are shown, in pixels of their square side; multiples of the model's
    patch factor.
    """

    keyframe_px: int = 864
    search_image_px: int = 256

    def __post_init__(self) -> None:
        if min(self.keyframe_px, self.search_image_px) < 1:
            raise UsageError(f"{self}: expected sides of 1 pixel or more")


@dataclass(frozen=True, slots=True)
class Recipe:
    """One system.

    Attributes:
        parse: reads a model turn.
        stop_strings: a generation ends behind the first of these.
        rubric: what is rewarded.
        build_tools: makes the tools from a search client and view sizes.
        brief_prompt: leave the instructions out of the system message.
        notes: stands at the end of the system message, e.g. how to use a tool that this recipe
            adds.
    """

    name: str
    parse: Parse
    stop_strings: tuple[str, ...]
    rubric: Rubric
    build_tools: Callable[[Searcher, ViewSizes], tuple[Tool, ...]]
    brief_prompt: bool = False
    notes: str = ""
    trainer_hooks: TrainerHooks = field(default_factory=TrainerHooks)

    def hooks(self) -> TrainerHooks:
        """Return what this recipe changes in the trainer."""
        return self.trainer_hooks

    def episode(self, sample: Sample, limits: Limits) -> Episode:
        """Start an episode on a sample; reads its offered frames."""
        return Episode(
            sample,
            opening_messages(sample, brief=self.brief_prompt, notes=self.notes),
            self.parse,
            limits,
        )


def opening_messages(
    sample: Sample, *, brief: bool = False, notes: str = ""
) -> tuple[Message, ...]:
    """Build the opening chat with the offered frames at their shown size; `notes` stands at the end
    of the system message.
    """
    frames = iter(sample.offered)
    messages: list[Message] = []
    for row in build_messages(
        escape_untrusted(sample.question),
        sample.ability,
        [f.frame_id for f in sample.offered],
        brief=brief,
    ):
        parts: list[Text | ImageRef] = []
        for index, text in enumerate(row["content"].split(IMAGE_PLACEHOLDER)):
            if index:
                frame = next(frames)
                picture = shown_image(frame.path, frame.shown_size)
                parts.append(ImageRef(picture, str(frame.path), f"frame {frame.frame_id}"))
            if text:
                parts.append(Text(text))
        if row["role"] == "system" and notes:
            parts.append(Text(f"\n{notes}"))
        messages.append(Message(row["role"], tuple(parts)))
    return tuple(messages)
