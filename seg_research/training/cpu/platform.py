"""verl's device platform for plain CPUs, chosen by VERL_PLATFORM=cpu. Nothing here runs on machines
with accelerators.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import psutil
import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry


class _CpuDevice(str):
    """The current device: `tensor.to()` wants "cpu", while verl also writes f"cpu:{device}" and
    wants 0 there.
    """

    __slots__ = ()

    def __new__(cls) -> _CpuDevice:
        return super().__new__(cls, "cpu")

    def __format__(self, spec: str) -> str:
        return "0"

    def __index__(self) -> int:
        return 0

    __int__ = __index__

    def __reduce__(self) -> tuple[type[_CpuDevice], tuple[()]]:
        return (_CpuDevice, ())


class _CpuModule(ModuleType):
    """`torch.cpu` with the functions of `torch.cuda` that verl calls; compares equal to
    `torch.cpu`, which verl checks.
    """

    Stream = torch.cpu.Stream
    stream = staticmethod(torch.cpu.stream)
    current_stream = staticmethod(torch.cpu.current_stream)

    def __init__(self) -> None:
        super().__init__("torch.cpu")
        for name in (
            "set_device",
            "synchronize",
            "empty_cache",
            "ipc_collect",
            "reset_peak_memory_stats",
        ):
            setattr(self, name, lambda *args, **kwargs: None)
        for name in (
            "memory_allocated",
            "memory_reserved",
            "max_memory_allocated",
            "max_memory_reserved",
        ):
            setattr(self, name, lambda *args, **kwargs: 0)
        self.manual_seed = self.manual_seed_all = torch.manual_seed
        self.get_rng_state = lambda *args: torch.get_rng_state()
        self.set_rng_state = lambda state, *args: torch.set_rng_state(state)
        self.current_device = _CpuDevice
        self.device_count = lambda: 1
        self.is_available = lambda: True
        self.get_device_name = lambda *args: "CPU"
        self.mem_get_info = _memory

    def __eq__(self, other: object) -> bool:
        return other is self or other is torch.cpu

    def __hash__(self) -> int:
        return hash("torch.cpu")


def _memory(*_: Any) -> tuple[int, int]:
    memory = psutil.virtual_memory()
    return memory.available, memory.total


_MODULE = _CpuModule()


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):
    """Platform of one logical device; Ray counts as many "GPU" as there are worker processes."""

    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "cpu"

    @property
    def device_module(self) -> Any:
        return _MODULE

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return False  # never chosen by detection, only by VERL_PLATFORM=cpu

    def current_device(self) -> Any:
        return _CpuDevice()

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        return

    def synchronize(self, device_index: int | None = None) -> None:
        return

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        return

    def empty_cache(self) -> None:
        return

    def get_device_capability(
        self, device_index: int | None = None
    ) -> tuple[int | None, int | None]:
        return (None, None)

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        return

    def profiler_stop(self) -> None:
        return

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> Any:
        return None
