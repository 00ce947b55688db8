"""verl's replay buffer, polled often enough for steps that take seconds."""

from __future__ import annotations

from typing import Any

from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer


class PromptReplayBuffer(ReplayBuffer):
    """The stock buffer with `sampler_kwargs.poll_interval`; the stock interval of 2 s hides the true step time of small runs.

    verl passes filtering arguments to its own class only, so this one is for runs without `algorithm.filter_groups`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, **dict(options.get("sampler_kwargs") or {}))
