"""Load the published checkpoints of XMem: their parameter names, which are ours, and what is wrong
where a file does not fit.
"""

# Types of torch and transformers are partly unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import torch
from torch import Tensor

from post_segmentation.xmem.network import Widths, XMem
from seg_common.errors import UsageError

RENAMES: tuple[tuple[str, str], ...] = (
    # Both encoders: ResNets as torchvision names them, except for the first stage of the key
    # encoder.
    (r"^value_encoder\.(conv1|bn1|layer\d)\.", r"value_encoder.trunk.\1."),
    (r"^(key_encoder|value_encoder\.trunk)\.conv1\.", r"\1.stem_conv."),
    (r"^(key_encoder|value_encoder\.trunk)\.bn1\.", r"\1.stem_norm."),
    (r"^key_encoder\.res2\.", r"key_encoder.stage4."),
    (r"^value_encoder\.trunk\.layer1\.", r"value_encoder.trunk.stage4."),
    (r"\.layer2\.", r".stage8."),
    (r"\.layer3\.", r".stage16."),
    (r"\.bn(\d)\.", r".norm\1."),
    (r"\.downsample\.", r".shortcut."),
    # Heads of the key encoder.
    (r"^key_proj\.key_proj\.", r"key_head.key."),
    (r"^key_proj\.d_proj\.", r"key_head.shrinkage."),
    (r"^key_proj\.e_proj\.", r"key_head.selection."),
    # Fusion of image and object, in value encoder and decoder alike.
    (r"\.fuser\.", r".fuse."),
    (r"\.attention\.ChannelGate\.mlp\.1\.", r".attention.squeeze."),
    (r"\.attention\.ChannelGate\.mlp\.3\.", r".attention.expand."),
    (r"\.attention\.SpatialGate\.spatial\.conv\.", r".attention.place."),
    # Sensory memory.
    (r"^value_encoder\.hidden_reinforce\.", r"value_encoder.gate."),
    (r"^decoder\.hidden_update\.g(\d+)_conv\.", r"decoder.update.from\1."),
    (r"^decoder\.hidden_update\.transform\.", r"decoder.update.gate.transform."),
    # Decoder.
    (r"^decoder\.up_16_8\.", r"decoder.up8."),
    (r"^decoder\.up_8_4\.", r"decoder.up4."),
    (r"\.skip_conv\.", r".skip."),
    (r"\.out_conv\.", r".block."),
    (r"^decoder\.pred\.", r"decoder.predict."),
)
"""Published name -> ours: every rule that matches is applied, in this order; what no rule touches
keeps its name.
"""

_MAX_NAMED = 5


def our_name(public_name: str) -> str:
    """Translate a parameter name of the published checkpoint."""
    for pattern, replacement in RENAMES:
        public_name = re.sub(pattern, replacement, public_name)
    return public_name


def load_xmem(path: Path, device: torch.device) -> XMem:
    """Load a published checkpoint (`XMem.pth` and its variants), ready for inference.

    Widths are read off the parameters, so the variant without sensory memory loads too. A network
    trained with one object at a time (four input channels in its value encoder) is given a fifth
    channel of zeros, which computes the same.

    Raises:
        UsageError: no such file, not a checkpoint, or parameters are missing, unknown or of another
            shape.
    """
    public = _read(path)
    first = "value_encoder.conv1.weight"
    if first in public and public[first].ndim == 4 and public[first].shape[1] == 4:
        public[first] = torch.nn.functional.pad(public[first], (0, 0, 0, 0, 0, 1))
    with torch.device("meta"):  # no time is spent on parameters that the file replaces
        network = XMem(_widths(public, path))
    wanted = network.state_dict()
    # only training reads them
    counters = {name: torch.tensor(0) for name in wanted if name.endswith("num_batches_tracked")}
    state = counters | {our_name(name): parameter for name, parameter in public.items()}
    _check(state, wanted, path)
    network.load_state_dict(state, assign=True)
    return network.to(device).float().eval().requires_grad_(False)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UsageError(
            f"{path}: no such file; give the XMem.pth of the XMem release "
            "(github.com/hkchengrex/XMem, v1.0)"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        BadZipFile,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"{path}: cannot be read as a PyTorch checkpoint ({reason}); download it again"
        ) from None
    if not isinstance(content, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()
    ):
        raise UsageError(
            f"{path}: expected a dictionary of parameters, as in XMem.pth; found something else"
        )
    return content


def _widths(public: Mapping[str, Tensor], path: Path) -> Widths:
    """Read the numbers of channels off the parameters that have them as their first axis."""
    axes = {
        "key": "key_proj.key_proj.weight",
        "value": "value_encoder.fuser.block2.conv2.weight",
        "stem": "key_encoder.conv1.weight",
    }
    absent = [name for name in axes.values() if name not in public or public[name].ndim != 4]
    if absent:
        raise UsageError(f"{path}: not a checkpoint of XMem: it has no {absent[0]}")
    gates = public.get("decoder.hidden_update.transform.weight")
    return Widths(
        **{axis: len(public[name]) for axis, name in axes.items()},
        sensory=0 if gates is None else len(gates) // 3,
    )


def _check(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    missing = [name for name in wanted if name not in state]
    unknown = [name for name in state if name not in wanted]
    shapes = [
        f"{name} is {tuple(state[name].shape)}, expected {tuple(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    problems = [("lacks", missing), ("has unknown", unknown), ("has another shape:", shapes)]
    found = [f"{what} {_some(names)}" for what, names in problems if names]
    if found:
        raise UsageError(
            f"{path}: does not fit XMem (names as here, docs/xmem.md): it {'; it '.join(found)}"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more
