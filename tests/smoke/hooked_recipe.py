"""The published recipe with all three trainer hooks (PYTHONPATH=tests/smoke): two weights more, a
loss that trains them, and a reward that is known after the rollout only.
"""

from dataclasses import replace

from seg_research.recipes.hooks import TrainerHooks
from seg_research.recipes.seg_research.recipe import SegResearch

HOOKS = TrainerHooks(
    model="hooked_recipe:add_offsets",
    loss="hooked_recipe:loss_with_offsets",
    after_rollout="hooked_recipe:reward_brevity",
    evidence=lambda transcript: {"num_turns": len(transcript.model_turns)},
)
MODULES = []
"""The module that the last call of `add_offsets` in this process added."""


class HookedRecipe(SegResearch):
    """The published recipe with the hooks."""

    def hooks(self) -> TrainerHooks:
        """Return them."""
        return HOOKS


def add_offsets(module, engine):
    """Add two weights; in every process of the actor, in none of the reference model."""
    import torch
    from torch.distributed.fsdp import fully_shard

    class Offsets(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.values = torch.nn.Parameter(torch.zeros(2))

        def forward(self, target):
            return ((self.values - target) ** 2).sum()

    assert not engine.engine_config.forward_only, "a reference model is none of a recipe's"
    module.offsets = fully_shard(Offsets(), mesh=engine.device_mesh)
    MODULES[:] = [module.offsets]


def loss_with_offsets(config, model_output, data, dp_group=None):
    """Pull the offsets towards 1, beside verl's own loss."""
    from verl.utils.metric import AggregationType, Metric
    from verl.workers.utils.losses import ppo_loss

    loss, metrics = ppo_loss(config, model_output, data, dp_group)
    # Micro-batches are added up and ranks averaged.
    share = len(data) * data["dp_size"] / data["global_batch_size"]
    added = 0.01 * MODULES[0](1.0) * share
    metrics["hooked/loss"] = Metric(value=added.detach(), aggregation=AggregationType.SUM)
    return loss + added, metrics


def reward_brevity(trainer, batch, trajectories):
    """Pay a quarter of a point by the number of turns."""
    return [one and paid_for_brevity(one) for one in trajectories]


def paid_for_brevity(trajectory):
    paid = 0.25 / trajectory.evidence["num_turns"]
    reward = trajectory.reward
    return replace(
        trajectory,
        reward=replace(reward, total=reward.total + paid, paid={**reward.paid, "brevity": paid}),
        measures={**trajectory.measures, "brevity": paid},
    )
