"""Seg-ReSearch (arXiv:2602.04454): interleaved reasoning and search, then a key frame, then one box
and point.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from seg_common.errors import UsageError
from seg_research.core.prediction import Prediction
from seg_research.core.video import FrameId
from seg_research.data.sample import Frame, Sample
from seg_research.episode.action import ParsedTurn
from seg_research.episode.grammar import Grammar
from seg_research.episode.texts import Part, fill, fill_text
from seg_research.episode.tool import Tool
from seg_research.episode.transcript import ImageRef, Message, Text, Transcript
from seg_research.recipes.judge import Judge
from seg_research.recipes.recipe import Recipe, ToolServices
from seg_research.recipes.seg_research.compat.judge import two_definitions
from seg_research.recipes.seg_research.final_answer import final
from seg_research.recipes.seg_research.grammar import SegResearchGrammar
from seg_research.recipes.seg_research.reward_settings import Mode
from seg_research.recipes.seg_research.rewards import build_rubric
from seg_research.recipes.seg_research.settings import SegResearchSettings, SegResearchTexts
from seg_research.recipes.seg_research.turns import HOSTILE_TURNS, demonstration
from seg_research.recipes.settings import TEXTS_FILE_NAME, EpisodeSettings
from seg_research.recipes.texts import load_texts
from seg_research.rewards.rubric import Rubric
from seg_research.rewards.similarity import TextEncoder
from seg_research.tools.search import SearchTool
from seg_research.tools.show_frame import ShowFrameTool

IN_VIDEO = "in-video"
"""The ability whose questions the video alone answers; they get the prompt without tools."""
OWN_TEXTS = Path(__file__).with_name(TEXTS_FILE_NAME)


class SegResearch(Recipe):
    """The recipe."""

    settings_type = SegResearchSettings
    settings: SegResearchSettings

    def __init__(
        self, settings: EpisodeSettings | None = None, encoder: TextEncoder | None = None
    ) -> None:
        """Take settings, by default the published ones, and what embeds texts for the rewards, by
        default the encoder that the settings name.
        """
        chosen = SegResearchSettings() if settings is None else settings
        if not isinstance(chosen, SegResearchSettings):
            raise UsageError(f"recipe '{chosen.recipe}' needs SegResearchSettings, found {chosen}")
        super().__init__(chosen)
        self._encoder = encoder

    @cached_property
    def texts(self) -> SegResearchTexts:
        """What is said to the policy.

        Raises:
            UsageError: the file that the settings name is none of texts.
        """
        given = self.settings.texts
        return load_texts(SegResearchTexts, OWN_TEXTS if given is None else Path(given))

    @cached_property
    def grammar(self) -> Grammar:
        """How turns are read and written."""
        return SegResearchGrammar(self.texts.fault)

    @cached_property
    def rubric(self) -> Rubric:
        """What is rewarded."""
        return build_rubric(self.settings.rewards, self._encoder)

    def tools(self, services: ToolServices) -> tuple[Tool, ...]:
        """Make the search and frame tools."""
        view, texts = self.settings.view, self.texts
        return (
            SearchTool(
                services.searcher,
                texts.search,
                services.escape,
                self.settings.search,
                view.search_image_px,
            ),
            ShowFrameTool(texts.show_frame, view.keyframe_px, images=self.images),
        )

    def prompt(self, sample: Sample) -> tuple[Message, ...]:
        """Build the opening chat with the offered frames at their shown size."""
        system = self.system_text(with_search=sample.ability != IN_VIDEO)
        return (
            Message("system", (Text(system),)),
            Message(
                "user", self.user_parts(sample.question, list(map(self._shown, sample.offered)))
            ),
        )

    def _shown(self, frame: Frame) -> tuple[FrameId, ImageRef]:
        image = self.images.read(frame.path, frame.shown_size)
        return frame.frame_id, ImageRef(image, str(frame.path), f"frame {frame.frame_id}")

    def system_text(self, *, with_search: bool) -> str:
        """Return the system message, with or without the tools to search with."""
        brief, texts = self.settings.brief_prompt, self.texts
        if not with_search:
            template = texts.brief_system_without_search if brief else texts.system_without_search
            return fill_text(template)
        functions = [function for about in self.descriptions for function in about.functions]
        return fill_text(
            texts.brief_system if brief else texts.system,
            tools="\n".join(function.prompt_line for function in functions),
            names=", ".join(function.name for function in functions),
        )

    def user_parts(
        self, question: str, frames: Sequence[tuple[FrameId, ImageRef | Text]]
    ) -> tuple[Part, ...]:
        """Return the user message: the frames, each with its image or what stands for it, and the
        question.
        """
        lines: list[Part] = []
        for frame_id, image in frames:
            lines += fill(self.texts.frame, frame_id=str(frame_id), image=image)
        return fill(self.texts.user, frames=lines, question=self.escape(question).strip())

    def final(self, transcript: Transcript) -> Prediction:
        """Read the last key frame that was shown before the answer, and the answer."""
        return final(transcript)

    def judge(self, mode: str = "") -> Judge:
        """Return what scores recorded rollouts anew, by our definitions (`robust`, the default) or
        by the original's (`compat`).

        Raises:
            UsageError: there is no such mode.
        """
        if mode and mode not in list(Mode):
            raise UsageError(f"mode '{mode}': expected one of {', '.join(Mode)}")
        return two_definitions(Mode(mode or Mode.ROBUST), self.settings.rewards, self._encoder)

    def demonstrate(self, sample: Sample) -> list[ParsedTurn]:
        """Search every annotated step, show the best frame, answer with its true box and point.

        Raises:
            UsageError: the sample has no ground truth.
        """
        return demonstration(sample)

    def hostile_turns(self) -> Sequence[str]:
        """Return what a broken or malicious policy might say."""
        return HOSTILE_TURNS
