"""One sweep of XMem over the objects of one group: from frame to frame, with everything that is
remembered of them.

Axes: O objects, C channels, H rows, W columns, Q cells of the frame's stride-16 grid.
"""

# Types of torch and transformers are partly unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import torch
from torch import Tensor

from post_segmentation.xmem.memory import Memory, MemorySettings, Query
from post_segmentation.xmem.network import ImageCode, XMem, aggregate


class ObjectGroup:
    """Objects that compete for pixels and see each other's masks."""

    def __init__(self, network: XMem, settings: MemorySettings) -> None:
        """Follow nothing yet."""
        self.objects: tuple[int, ...] = ()
        """Those that have joined, by the numbers they were given, in that order."""
        self.cohorts: list[tuple[int, Memory]] = []
        """Objects that joined together share a memory: every cell of it knows all of them. By their
        number.
        """
        self._network = network
        self._settings = settings
        self._sensory_OCHW: Tensor | None = None
        self._frames_since_write = 0

    def step(
        self,
        code: ImageCode,
        joining: tuple[int, ...] = (),
        joining_OHW: Tensor | None = None,
        *,
        remember: bool = True,
    ) -> Tensor:
        """Segment a frame.

        Args:
            code: of the frame.
            joining: the objects whose masks are given here; somebody has to have joined by now.
            joining_OHW: those masks, one object at most at each pixel; None where nobody joins.
            remember: not on the last frame of a sweep, where nothing would ask for it.

        Returns:
            Probabilities (1 + O, H, W) of the background and of `objects`, which those that join
                are now the last of.
        """
        self._frames_since_write += 1
        write = remember and (
            joining_OHW is not None or self._frames_since_write >= self._settings.every
        )
        all_HW = self._segment(code, update=remember and not write) if self.objects else None
        if joining_OHW is not None:
            self._join(code, joining)
            earlier_OHW = (
                joining_OHW[:0] if all_HW is None else all_HW[1:] * (joining_OHW.sum(0) < 0.5)
            )
            all_HW = aggregate(torch.cat([earlier_OHW, joining_OHW]))
        assert all_HW is not None, "a group without objects"
        if write:
            self._write(code, all_HW[1:])
            self._frames_since_write = 0
        return all_HW

    def _segment(self, code: ImageCode, *, update: bool) -> Tensor:
        query = _query(code)
        with torch.autocast(code.key_1CHW.device.type, enabled=False):
            readout_QOC = torch.cat([memory.read(query) for _, memory in self.cohorts], 1)
        readout_OCHW = readout_QOC.permute(1, 2, 0).unflatten(2, code.key_1CHW.shape[-2:])
        logits_OHW, sensory_OCHW = self._network.decode(
            code, readout_OCHW, self._sensory(), update=update
        )
        self._sensory_OCHW = sensory_OCHW.float()
        return aggregate(logits_OHW.float().sigmoid())

    def _join(self, code: ImageCode, joining: tuple[int, ...]) -> None:
        self.objects += joining
        self.cohorts.append((len(joining), Memory(self._settings)))
        shape = (len(joining), self._network.widths.sensory, *code.key_1CHW.shape[-2:])
        blank_OCHW = torch.zeros(shape, device=code.key_1CHW.device)
        self._sensory_OCHW = (
            blank_OCHW
            if self._sensory_OCHW is None
            else torch.cat([self._sensory_OCHW, blank_OCHW])
        )

    def _write(self, code: ImageCode, probs_OHW: Tensor) -> None:
        """Remember the frame; its sensory memory gets the deep update, from the values, in place of
        the decoder's.
        """
        value_OCHW, sensory_OCHW = self._network.encode_masks(code, probs_OHW, self._sensory())
        self._sensory_OCHW = sensory_OCHW.float()
        query, shrinkage_Q1 = _query(code), _rows(code.shrinkage_11HW)
        value_QOC = value_OCHW.float().flatten(2).permute(2, 0, 1)
        with torch.autocast(code.key_1CHW.device.type, enabled=False):
            for (num_objects, memory), part_QOC in zip(
                self.cohorts, value_QOC.split([n for n, _ in self.cohorts], 1), strict=True
            ):
                assert part_QOC.shape[1] == num_objects
                memory.write(query, shrinkage_Q1, part_QOC)

    def _sensory(self) -> Tensor:
        assert self._sensory_OCHW is not None, "a group without objects"
        return self._sensory_OCHW


def _query(code: ImageCode) -> Query:
    return Query(_rows(code.key_1CHW), _rows(code.selection_1CHW))


def _rows(map_1CHW: Tensor) -> Tensor:
    """Lay a map out as one row of channels per cell: (Q, C)."""
    return map_1CHW[0].float().flatten(1).T.contiguous()
