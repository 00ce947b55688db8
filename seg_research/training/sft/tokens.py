"""Episodes as tokens, equal to those of a rollout that said and saw the same (a test compares
them). Images are counted, not decoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import Image

from seg_research.policies.chat_tokens import END_OF_TURN, ChatTokens
from seg_research.policies.processor import IMAGE_TOKEN, VISION_TOKENS
from seg_research.training.sft.episodes import MODEL_ROLE, TrainingEpisode

_PLACE = "<|place|>"
_CHAT_TOKENS = ("<|im_start|>", END_OF_TURN, "<|endoftext|>", *VISION_TOKENS)


@dataclass(frozen=True, slots=True)
class EncodedEpisode:
    """Tokens of a whole episode (L,) and 1 where the model spoke, the ends of its turns included
    (L,).
    """

    input_ids: list[int]
    loss_mask: list[int]


class SizedChatTokens(ChatTokens):
    """Encodes like its base, but needs no more of an image than its size."""

    def _encode(self, text: str, images: list[Image.Image]) -> list[int]:
        vision = self._processor.image_processor
        for image in images:
            patches = vision.get_number_of_image_patches(image.height, image.width, {})
            text = text.replace(IMAGE_TOKEN, _PLACE * (patches // vision.merge_size**2), 1)
        return self._processor.tokenizer(text.replace(_PLACE, IMAGE_TOKEN))["input_ids"]


class EpisodeEncoder:
    """Encodes episodes for one processor."""

    def __init__(self, processor: Any) -> None:
        """Take a processor with a ChatML tokenizer.

        Raises:
            UsageError: it has another one.
        """
        self._chat = SizedChatTokens(processor)
        self._tokenizer = processor.tokenizer
        known = self._tokenizer.get_vocab()
        self._never_said = {known[token] for token in _CHAT_TOKENS if token in known}

    def encode(self, episode: TrainingEpisode) -> EncodedEpisode | None:
        """Encode an episode; None where a turn of the model spells chat tokens, which no rollout
        can say.
        """
        ids = self._chat.opening(episode.prompt)
        mask = [0] * len(ids)
        said: list[int] = []
        for turn in episode.turns:
            is_model = turn.role == MODEL_ROLE
            if is_model:
                said = self._tokenizer.encode(turn.plain(), add_special_tokens=False)
                if not self._never_said.isdisjoint(said):
                    return None
                said.append(self._chat.end_id)
            piece = said if is_model else self._chat.reply(said, turn)
            ids += piece
            mask += [int(is_model)] * len(piece)
        return EncodedEpisode(ids, mask)
