"""Lets a torchvision that was built for CUDA be imported beside a torch without.

Its compiled part does not load there, so that its Python code, which refers to two compiled
operators, fails. They are declared just before torchvision is imported; calling them is an error,
and nothing here does.

Loaded in every process of an environment by a .pth file; costs nothing where nobody imports
torchvision.
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_BOXES = "Tensor dets, Tensor scores, float iou_threshold"


class _Declaring(MetaPathFinder):
    """Finds torchvision where it is and puts the declarations before its code."""

    library: Any = None

    def find_spec(
        self, name: str, path: Any = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        found = PathFinder.find_spec(name, path) if name == "torchvision" else None
        if found is None or found.loader is None:
            return None
        execute = found.loader.exec_module

        def declare_and_execute(module: ModuleType) -> None:
            import torch

            if self.library is None:
                self.library = torch.library.Library("torchvision", "FRAGMENT")
                for operator in ("nms", "qnms"):
                    self.library.define(f"{operator}({_BOXES}) -> Tensor")
            execute(module)

        found.loader.exec_module = declare_and_execute
        return found


sys.meta_path.insert(0, _Declaring())
