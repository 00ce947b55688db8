"""The episode inside verl: one `run()` is one trajectory, scored from its transcript by the
recipe's rubric.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import resource
from collections import Counter
from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopOutput

from seg_common.errors import InfraError, UsageError
from seg_research.core.seeding import derive_seed
from seg_research.data.rows import sample_of
from seg_research.episode.run import run_episode
from seg_research.episode.transcript import Outcome, StopReason, Transcript
from seg_research.rewards.rubric import RewardBreakdown, Score
from seg_research.rewards.shaping import was_cut
from seg_research.training.launch.parent_watchdog import launcher_has_gone
from seg_research.training.rollout.context import RolloutContext, context_of
from seg_research.training.rollout.conversation import LoopPolicy, VerlConversation
from seg_research.training.rollout.dataset import FRAMES_KEY
from seg_research.training.rollout.shared_image_processor import share_pixels, token_counter
from seg_research.training.run_contract import VALIDATION_KEY, stop_run
from seg_research.training.trajectory import FinishedTrajectory

_END_S = 60.0
"""A run whose launcher has ended, ends well before."""

logger = logging.getLogger(__name__)


class SegAgentLoop(AgentLoopBase):
    """Runs one episode. What can be built once a process (recipe, search client, guards) lives in
    `RolloutContext`.
    """

    def __init__(
        self,
        trainer_config: Any,
        server_manager: Any,
        tokenizer: Any,
        processor: Any,
        *given: Any,
        **named: Any,
    ) -> None:
        """As verl calls it; the base class, which needs a processor to count tokens only, gets one
        that computes no pixels.
        """
        super().__init__(
            trainer_config, server_manager, tokenizer, token_counter(processor), *given, **named
        )
        self._pixels = share_pixels(processor)

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> AgentLoopOutput:
        """Run and score one episode.

        Raises:
            InfraError: a service failed for good; verl goes on with the rest of the group, so that
                no baseline knows of this trajectory.
            UsageError: the data or the prompt's length must change, or a guard stopped the run; the
                launcher is told.
        """
        try:
            context = context_of(self.server_manager, lambda: RolloutContext(self.config))
            return await self._run(context, sampling_params, row)
        except InfraError:
            if launcher_has_gone():
                # The search server ended with it, and this run ends in a moment. Until then no
                # step may be trained, and saved, without this episode.
                await wait_for_the_end()
            raise
        except UsageError as error:
            raise stop_run(self.config, str(error)) from error
        except Exception as error:
            # Boundary: verl would go on without this trajectory and say so in one line among
            # thousands; our bug must end the run.
            logger.exception("episode of sample %s failed", row.get("id"))
            raise stop_run(
                self.config, f"sample {row.get('id')}: {type(error).__name__}: {error}"
            ) from error

    async def _run(
        self, context: RolloutContext, sampling_params: dict[str, Any], row: dict[str, Any]
    ) -> AgentLoopOutput:
        self.rollout_config = context.rollout
        sample = sample_of({**row, "images": row[FRAMES_KEY]}, f"sample {row.get('id')}")
        policy = LoopPolicy(
            self,
            _seeded(self.config, sampling_params, row),
            context.recipe.grammar.stop_strings,
            context.settings.limits,
            context.lender,
        )
        rollout = int(row["session_id"])
        episode = await context.recipe.begin(sample, policy, rollout)
        conversation = policy.converse(episode.sample, rollout)
        async with context.tools() as tools:
            transcript = await run_episode(episode, conversation, tools)
        score = await context.scorer.score(
            transcript, sample.truth, validation=bool(row[VALIDATION_KEY])
        )
        await context.record(episode.sample, transcript, score, row)
        if transcript.stop is StopReason.PROMPT_TOO_LONG:
            raise UsageError(
                f"the prompt of sample {sample.sample_id} is longer than "
                f"data.max_prompt_length={self.rollout_config.prompt_length}; "
                "raise it, or prepare the data with fewer or smaller frames"
            )
        reward = context.recipe.rubric.breakdown(transcript, score)
        if reward is None:
            raise InfraError(
                f"sample {sample.sample_id}: "
                f"{transcript.error or 'no ground truth to score against'}"
            )
        # verl asks for them next, on the event loop.
        await asyncio.to_thread(self._pixels.prepare, conversation.images)
        trajectory = _trajectory(transcript, score, reward, str(row["uid"]))
        evidence = context.recipe.hooks().evidence
        if evidence is not None:
            trajectory = dataclasses.replace(trajectory, evidence=evidence(transcript))
        return _output(conversation, transcript, trajectory)


async def wait_for_the_end() -> None:
    """Wait longer than a run lives whose launcher has ended."""
    await asyncio.sleep(_END_S)


def _seeded(config: Any, sampling_params: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """Make what is sampled a function of seed, step, prompt and rollout, so that a run that was
    interrupted samples what it would have.

    Not for vLLM, unless asked for: it draws requests with seeds of their own one by one, and its
    batches differ from run to run anyway.
    """
    rollout = config.actor_rollout_ref.rollout
    if rollout.name == "vllm" and not rollout.full_determinism:
        return sampling_params
    # The prompts of a step are numbered (training.patches), as dynamic sampling may
    # repeat one; those of validation are not.
    prompt = () if row[VALIDATION_KEY] else (str(row["uid"]),)
    seed = derive_seed(
        config.seg.seed,
        "rollout",
        int(row["global_steps"]),
        str(row["id"]),
        *prompt,
        int(row["session_id"]),
    )
    return {**sampling_params, "seed": seed}


def _trajectory(
    transcript: Transcript, score: Score, reward: RewardBreakdown, group: str
) -> FinishedTrajectory:
    """Gather what the learner needs to know of an episode.

    Among the measures, `process` is what the total has beyond the outcome: the way to it, shaping,
    and what factors took away.
    """
    calls = Counter(
        observation.tool
        for observation in transcript.observations
        if observation.outcome is not Outcome.FAULT
    )
    measures: dict[str, float | None] = {
        **score.terms,
        **score.factors,
        "outcome": reward.outcome,
        "process": reward.total - reward.outcome,
        "answered": float(reward.answered),
        "truncated": float(was_cut(transcript)),
        "tool_calls": float(calls.total()),
        **_counts(transcript),
    }
    return FinishedTrajectory(reward, group, was_cut(transcript), measures, dict(calls))


def _output(
    conversation: VerlConversation, transcript: Transcript, trajectory: FinishedTrajectory
) -> AgentLoopOutput:
    trace = conversation.tokens()
    if not trace.response_ids:
        raise UsageError(f"sample {transcript.sample_id}: the model generated nothing")
    extra = {"turn_scores": [], "tool_rewards": [], **conversation.global_steps}
    extra |= trajectory.to_extra_fields()
    tool_seconds = sum(observation.seconds for observation in transcript.observations)
    # As pydantic does it: verl's own type for metrics is a model, filled from a dict.
    metrics: Any = {**conversation.metrics, "tool_calls": tool_seconds}
    return AgentLoopOutput(
        prompt_ids=list(trace.prompt_ids),
        response_ids=list(trace.response_ids),
        response_mask=list(trace.response_mask),
        response_logprobs=list(trace.response_logprobs),
        multi_modal_data={"images": conversation.images},
        reward_score=trajectory.reward.total,
        num_turns=len(transcript.turns) + 1,
        metrics=metrics,
        extra_fields=extra,
    )


def _counts(transcript: Transcript) -> dict[str, float]:
    """Count what users of other trainers miss in their logs; the step's metrics are the means."""
    turns, outcomes = (
        transcript.model_turns,
        [observation.outcome for observation in transcript.observations],
    )
    return {
        "tool_errors": float(outcomes.count(Outcome.REJECTED)),
        "faults": float(outcomes.count(Outcome.FAULT)),
        "empty_turns": float(sum(not turn.text.strip() for turn in turns)),
        "cache_hits": float(sum(observation.cached for observation in transcript.observations)),
        "tokens_per_turn": sum(turn.num_tokens for turn in turns) / max(1, len(turns)),
        "policy_s": sum(turn.seconds for turn in turns),
        "tools_s": sum(observation.seconds for observation in transcript.observations),
        "worker_peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }
