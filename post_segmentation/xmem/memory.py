"""The memory of XMem: cells of past frames that a new frame asks what it looks at.

A *cell* is one position of a remembered frame's stride-16 grid. Working memory holds whole recent
frames; when it is full, all but the first and the newest frames shrink to a few prototypes in
long-term memory, whose least used prototypes give way when that is full.

Axes: Q asking cells, N remembered cells, O objects, C channels. All of memory is float32, whatever
precision the network runs in: the similarity is a difference of large sums, which 8 bits of
mantissa would drown.
"""

# Types of torch and transformers are partly unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from dataclasses import dataclass, fields
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

MAX_SIMILARITIES = 2**26
"""Entries of the similarity matrix that are held at once (256 MiB); more asking cells are answered
in turns.
"""


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """How much is remembered; the defaults are those of the paper and of the published evaluation.

    Attributes:
        every: frames from one remembered frame to the next (r).
        top_k: remembered cells that answer one asking cell.
        max_frames: of working memory (T_max); reaching it starts a consolidation.
        min_frames: left in working memory by a consolidation (T_min), the first one among them.
        num_prototypes: cells that a consolidation makes of the other frames (P).
        max_long_term: cells of long-term memory (LT_max).
    """

    every: int = 5
    top_k: int = 30
    max_frames: int = 10
    min_frames: int = 5
    num_prototypes: int = 128
    max_long_term: int = 10_000


@dataclass(frozen=True, slots=True)
class Cells:
    """Remembered cells, one a row.

    Attributes:
        key_NC: what was seen there.
        shrinkage_N1: how much the cell trusts its key.
        selection_NC: which channels counted when the cell itself asked.
        value_NOC: what it meant for every object.
        usage_N1: the share of all answers since that the cell has given.
        age_N1: how often it could have answered.
    """

    key_NC: Tensor
    shrinkage_N1: Tensor
    selection_NC: Tensor
    value_NOC: Tensor
    usage_N1: Tensor
    age_N1: Tensor

    def __len__(self) -> int:
        return len(self.key_NC)

    def at(self, which: slice | Tensor) -> Cells:
        """Return some of the cells."""
        return Cells(*(getattr(self, field.name)[which] for field in fields(self)))

    def joined(self, other: Cells) -> Cells:
        """Return these cells and then the others."""
        return Cells(
            *(
                torch.cat([getattr(self, field.name), getattr(other, field.name)])
                for field in fields(self)
            )
        )

    def usage_rate_N(self) -> Tensor:
        """Usage per chance to be used."""
        return (self.usage_N1 / self.age_N1).squeeze(1)


class Query(NamedTuple):
    """The asking cells of one frame."""

    key_QC: Tensor
    selection_QC: Tensor


class Memory:
    """Working and long-term memory of objects that were first seen on the same frame."""

    def __init__(self, settings: MemorySettings) -> None:
        """Remember nothing yet."""
        self.settings = settings
        self.working: Cells | None = None
        self.long_term: Cells | None = None

    def write(self, query: Query, shrinkage_Q1: Tensor, value_QOC: Tensor) -> None:
        """Remember a frame; every frame has the same number of cells."""
        unused = torch.zeros_like(shrinkage_Q1)
        # Nearly zero age: a cell that was never asked has usage 0, not 0/0.
        new = Cells(
            query.key_QC, shrinkage_Q1, query.selection_QC, value_QOC, unused, unused + 1e-7
        )
        self.working = new if self.working is None else self.working.joined(new)
        if len(self.working) >= self.settings.max_frames * len(new):
            self._consolidate(self.working, len(new))

    def read(self, query: Query) -> Tensor:
        """Answer every asking cell from the cells most like it, and count who answered.

        Returns:
            Values (Q, O, C).
        """
        assert self.working is not None, "read before write"
        num_long = 0 if self.long_term is None else len(self.long_term)
        cells = self.working if self.long_term is None else self.long_term.joined(self.working)
        usage_N1, turns = torch.zeros_like(cells.usage_N1), []
        num_rows = max(MAX_SIMILARITIES // len(cells), 1)
        for start in range(0, len(query.key_QC), num_rows):
            part = Query(
                query.key_QC[start : start + num_rows], query.selection_QC[start : start + num_rows]
            )
            weight_QK, index_QK = nearest(
                similarity(part, cells.key_NC, cells.shrinkage_N1), self.settings.top_k
            )
            turns.append(_gather(cells.value_NOC, weight_QK, index_QK))
            shares_QN = weight_QK.new_zeros(len(weight_QK), len(cells)).scatter_(
                1, index_QK, weight_QK
            )
            usage_N1 += shares_QN.sum(0).unsqueeze(1)
        self._count(usage_N1, num_long)
        return torch.cat(turns)

    def _count(self, usage_N1: Tensor, num_long: int) -> None:
        for cells, usage in (
            (self.long_term, usage_N1[:num_long]),
            (self.working, usage_N1[num_long:]),
        ):
            if cells is not None:
                cells.usage_N1.add_(usage)
                cells.age_N1.add_(1)

    def _consolidate(self, working: Cells, cells_per_frame: int) -> None:
        """Turn all frames but the first and the newest into prototypes in long-term memory."""
        newest = len(working) - (self.settings.min_frames - 1) * cells_per_frame
        prototypes = potentiate(
            working.at(slice(cells_per_frame, newest)), self.settings.num_prototypes
        )
        if self.long_term is not None:
            prototypes = evict(
                self.long_term, self.settings.max_long_term - len(prototypes)
            ).joined(prototypes)
        self.long_term = prototypes
        self.working = working.at(slice(cells_per_frame)).joined(working.at(slice(newest, None)))


def similarity(query: Query, key_NC: Tensor, shrinkage_N1: Tensor) -> Tensor:
    """Return how like (Q, N) each asking cell is to each remembered one: 0 at most, from the same
    key.

    Minus the squared distance of the keys over the channels that the asking cell selects, times the
    shrinkage of the remembered cell, over the square root of the number of channels; the square is
    multiplied out, so that no (Q, N, C) is ever held.
    """
    key_QC, selection_QC = query
    cross_QN = (2 * selection_QC * key_QC) @ key_NC.T
    remembered_QN = selection_QC @ key_NC.square().T
    asking_Q1 = (selection_QC * key_QC.square()).sum(1, keepdim=True)
    return (cross_QN - remembered_QN - asking_Q1) * (shrinkage_N1.T / sqrt(key_NC.shape[1]))


def nearest(similarity_QN: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Return weights (Q, K), their softmax, and indices (Q, K) of the most similar cells; K is all
    of them where they are fewer.
    """
    best_QK, index_QK = similarity_QN.topk(min(top_k, similarity_QN.shape[1]), dim=1)
    return best_QK.softmax(1), index_QK


def _gather(value_NOC: Tensor, weight_QK: Tensor, index_QK: Tensor) -> Tensor:
    """Sum the indexed values by weight: (Q, O, C)."""
    bag = torch.nn.functional.embedding_bag(
        index_QK, value_NOC.flatten(1), per_sample_weights=weight_QK, mode="sum"
    )
    return bag.unflatten(1, value_NOC.shape[1:])


def potentiate(candidates: Cells, num_prototypes: int) -> Cells:
    """Make prototypes of the most used cells: each keeps its key, and gathers its value from all
    candidates that are like it.
    """
    chosen = candidates.usage_rate_N().topk(min(num_prototypes, len(candidates))).indices
    keys, selections = candidates.key_NC[chosen], candidates.selection_NC[chosen]
    affinity_PN = similarity(
        Query(keys, selections), candidates.key_NC, candidates.shrinkage_N1
    ).softmax(1)
    values = (affinity_PN @ candidates.value_NOC.flatten(1)).unflatten(
        1, candidates.value_NOC.shape[1:]
    )
    shrinkages = affinity_PN @ candidates.shrinkage_N1
    return Cells(
        keys,
        shrinkages,
        selections,
        values,
        torch.zeros_like(shrinkages),
        torch.full_like(shrinkages, 1e-7),
    )


def evict(cells: Cells, max_size: int) -> Cells:
    """Return the most used cells, oldest first; of equally used ones any."""
    if len(cells) <= max_size:
        return cells
    return cells.at(cells.usage_rate_N().topk(max_size).indices.sort().values)
