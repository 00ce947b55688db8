"""Chat messages to tokens, piece by piece: what was sampled is kept as sampled and only new
messages are encoded.

The result equals verl's continuous-token helpers (a contract test compares them); this copy lets
the predictor run without verl.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from seg_common.errors import UsageError
from seg_research.episode.transcript import ImageRef, Message, Text

END_OF_TURN = "<|im_end|>"


def as_chat(message: Message) -> dict[str, Any]:
    """Convert to the structured content that chat templates and verl read, with PIL images."""
    content: list[dict[str, Any]] = []
    for part in message.parts:
        match part:
            case Text(text=text):
                content.append({"type": "text", "text": text})
            case ImageRef(image=image):
                content.append({"type": "image", "image": image})
    return {"role": message.role, "content": content}


class ChatTokens:
    """Encodes messages for one processor with a ChatML template (the Qwen family)."""

    def __init__(self, processor: Any) -> None:
        """Check that the tokenizer speaks ChatML.

        Raises:
            UsageError: it does not.
        """
        self._processor = processor
        tokenizer = processor.tokenizer
        self.end_id: int = tokenizer.convert_tokens_to_ids(END_OF_TURN)
        newline = tokenizer.encode("\n", add_special_tokens=False)
        if self.end_id in (None, tokenizer.unk_token_id) or len(newline) != 1:
            raise UsageError(
                f"{type(tokenizer).__name__}: expected a ChatML tokenizer with {END_OF_TURN} and a"
                " one-token newline (Qwen family)"
            )
        self._newline_id: int = newline[0]

    def opening(self, messages: Sequence[Message]) -> list[int]:
        """Encode the opening chat up to where the policy begins to speak."""
        return self._encode(
            self._render([as_chat(m) for m in messages], generate=True),
            [i.image for m in messages for i in m.images],
        )

    def reply(self, sampled_ids: Sequence[int], message: Message) -> list[int]:
        """Encode what follows a sampled turn: the end of that turn if it was not sampled, the
        message, and the start of the next turn.
        """
        before = [{"role": "user", "content": [{"type": "text", "text": "."}]}]
        prefix = self._render(before, generate=False)
        text = self._render([*before, as_chat(message)], generate=True).removeprefix(prefix)
        closing = [] if sampled_ids and sampled_ids[-1] == self.end_id else [self.end_id]
        return [*closing, self._newline_id, *self._encode(text, [i.image for i in message.images])]

    def _render(self, chat: list[dict[str, Any]], *, generate: bool) -> str:
        return self._processor.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=generate
        )

    def _encode(self, text: str, images: list[Image.Image]) -> list[int]:
        encoded = self._processor(text=[text], images=images or None)["input_ids"][0]
        return [int(token) for token in encoded]
