"""What verl's processes get by importing the plugin: our rollout by name, and on request the CPU as
a device.
"""

import json
import os
import pickle
import subprocess
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")

import torch

from seg_research.training.patches import PATCHES, Patch


def patch_of(name: str) -> Patch:
    (found,) = (entry for entry in PATCHES if entry.target.endswith((f".{name}", f":{name}")))
    return found


PROBE = """
import json, sys, torch, verl
from verl.plugin.platform import get_platform
from verl.utils import distributed
from verl.workers.rollout import base
from verl.workers.rollout.replica import RolloutReplicaRegistry
platform = get_platform()
print(json.dumps({
    "platform": [
        platform.device_name,
        platform.communication_backend_name(),
        platform.ray_resource_name(),
    ],
    "rollout": base._ROLLOUT_REGISTRY["transformers", "async"],
    "replica": RolloutReplicaRegistry.get("transformers").__name__,
    "patched": getattr(distributed.initialize_global_process_group_ray, "_seg_patched", False),
    "threads": torch.get_num_threads(),
}))
"""


def test_in_a_process_of_verl_on_the_cpu_everything_is_in_place():
    asked = {
        "VERL_USE_EXTERNAL_MODULES": "seg_research.training.plugin",
        "VERL_PLATFORM": "cpu",
        "SEG_RESEARCH_TORCH_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["platform"] == ["cpu", "gloo", "GPU"]
    assert found["patched"] is True
    assert found["threads"] == 1
    assert (
        found["rollout"] == "seg_research.training.rollout.transformers_server.TransformersAdapter"
    )
    assert found["replica"] == "TransformersReplica"


def test_on_other_platforms_only_the_rollout_is_added(monkeypatch):
    from verl.utils import distributed
    from verl.workers.rollout.replica import RolloutReplicaRegistry

    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    before = distributed.initialize_global_process_group_ray
    from seg_research.training import plugin

    plugin._register()
    assert distributed.initialize_global_process_group_ray is before
    assert RolloutReplicaRegistry.get("transformers").__name__ == "TransformersReplica"


def test_the_cpu_is_never_chosen_unasked():
    from seg_research.training.cpu.platform import CpuPlatform

    assert not CpuPlatform().is_platform_available(use_smi_check=True)
    assert CpuPlatform().is_available()


def test_the_current_device_serves_as_a_target_and_as_a_number():
    from seg_research.training.cpu.platform import CpuPlatform

    device = CpuPlatform().current_device()
    assert torch.zeros(1).to(device).device.type == "cpu"
    assert f"cpu:{device}" == "cpu:0"
    assert [10, 20][device] == 10
    assert str(pickle.loads(pickle.dumps(device))) == "cpu"
    assert f"{pickle.loads(pickle.dumps(device))}" == "0"


def test_the_device_module_has_what_verl_calls_and_passes_for_torch_cpu():
    from seg_research.training.cpu.platform import CpuPlatform

    module = CpuPlatform().device_module
    assert module == torch.cpu
    assert module.memory_allocated() == module.max_memory_reserved() == 0
    free, total = module.mem_get_info()
    assert 0 < free <= total
    state = module.get_rng_state()
    drawn = torch.rand(3)
    module.set_rng_state(state)
    assert torch.equal(torch.rand(3), drawn)
    module.manual_seed_all(3)
    drawn = torch.rand(3)
    module.manual_seed(3)
    assert torch.equal(torch.rand(3), drawn)
    for name in ("empty_cache", "synchronize", "reset_peak_memory_stats"):
        assert getattr(module, name)() is None


def test_the_process_group_is_asked_for_with_one_backend_and_only_patched_once(monkeypatch):
    from verl.utils import distributed

    asked = []
    monkeypatch.setattr(
        distributed,
        "initialize_global_process_group_ray",
        lambda *arguments: asked.append(arguments),
    )
    patch_of("initialize_global_process_group_ray").apply()
    patched = distributed.initialize_global_process_group_ray
    patch_of("initialize_global_process_group_ray").apply()
    assert distributed.initialize_global_process_group_ray is patched
    patched(30)
    patched(None, "nccl")
    assert asked == [(30, "cpu:gloo"), (None, "nccl")]


def test_prompts_are_numbered_by_step_and_go_on_within_it(monkeypatch):
    from tensordict import TensorDict
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer
    from verl.utils import tensordict_utils

    def fetch(self, num_prompts=None):
        batch = TensorDict({"dummy": torch.zeros(num_prompts or 3)}, batch_size=[num_prompts or 3])
        tensordict_utils.assign_non_tensor_stack(batch, "uid", ["random"] * len(batch))
        return batch

    monkeypatch.setattr(PPOTrainer, "_next_train_batch", fetch)
    patch_of("_next_train_batch").apply()
    patch_of("_next_train_batch").apply()
    trainer = SimpleNamespace()
    names = []
    for step, asked in ((1, None), (1, 2), (2, None)):
        trainer.global_steps = step
        names.append(list(PPOTrainer._next_train_batch(trainer, asked)["uid"]))
    assert names == [["1-0", "1-1", "1-2"], ["1-3", "1-4"], ["2-0", "2-1", "2-2"]]


def test_a_verl_with_another_seam_is_refused_before_anything_runs(monkeypatch):
    from seg_common.errors import UsageError
    from seg_research.training import plugin
    from seg_research.training.extension_points import ExtensionPointStatus
    from seg_research.training.launch.parent_watchdog import LAUNCHER_VARIABLE

    moved = ExtensionPointStatus("verl.a:b", False, "takes (x), expected (y)")
    monkeypatch.setattr(
        plugin, "check_extension_points", lambda: [ExtensionPointStatus("verl", True), moved, moved]
    )
    monkeypatch.setattr(plugin, "end_with_launcher", lambda: None)
    plugin._register()  # a worker: the launcher's child has looked
    monkeypatch.setenv(LAUNCHER_VARIABLE, str(os.getppid()))
    with pytest.raises(
        UsageError,
        match=(
            r"not the one that was tested: verl.a:b: takes \(x\), expected \(y\) \(and 1 more;"
            r" seg-research doctor"
        ),
    ):
        plugin._register()
