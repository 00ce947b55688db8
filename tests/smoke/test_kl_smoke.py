"""A KL term needs a reference model beside the policy: equal to it before the first update, and
left behind by it.
"""

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")

pytestmark = [pytest.mark.slow, pytest.mark.verl]


@pytest.fixture(scope="module")
def metrics(new_run):
    run = new_run(
        {
            "actor_rollout_ref.actor.use_kl_loss": "true",
            "actor_rollout_ref.actor.kl_loss_coef": 0.01,
            "actor_rollout_ref.actor.kl_loss_type": "low_var_kl",
            "actor_rollout_ref.actor.optim.lr": 1e-3,
        }
    )
    run.complete()
    return run.metrics()


def test_the_policy_starts_at_the_reference(metrics):
    assert abs(metrics[0]["actor/kl_loss"]) < 1e-6


def test_the_policy_leaves_it(metrics):
    assert metrics[0]["actor/grad_norm"] > 0
    assert metrics[1]["actor/kl_loss"] > 1e-5
    assert metrics[1]["actor/kl_coef"] == 0.01
