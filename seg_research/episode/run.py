"""Run episodes: ask the policy, carry out its actions, show what came of them. The same loop serves
training, evaluation and tests.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from seg_common.errors import InfraError, InvariantError, ToolError
from seg_research.data.sample import Sample
from seg_research.episode.action import Action, FormatFault
from seg_research.episode.episode import Episode
from seg_research.episode.grammar import Grammar
from seg_research.episode.policy import Conversation
from seg_research.episode.tool import Tool, text_observation
from seg_research.episode.transcript import Observation, Outcome, StopReason, Transcript


async def run_episode(
    episode: Episode, conversation: Conversation, tools: Sequence[Tool]
) -> Transcript:
    """Run one episode to its end. Infrastructure failures end it with `StopReason.INFRA`; they are
    never raised, never rewarded.
    """
    try:
        if not await conversation.open(episode.prompt):
            episode.halt(StopReason.PROMPT_TOO_LONG)
        while episode.stop is None:
            action = episode.take_turn(await conversation.generate(episode.limits.max_turn_tokens))
            if action is None:
                break
            observation = await execute_action(action, episode.sample, tools, episode.grammar)
            if await conversation.observe(observation.message):
                episode.take_observation(observation)
            else:
                episode.halt(StopReason.TOO_LONG)
    except InfraError as error:
        episode.halt(StopReason.INFRA, str(error))
    finally:
        await conversation.close()
    return episode.transcript(conversation.tokens())


async def execute_action(
    action: Action, sample: Sample, tools: Sequence[Tool], grammar: Grammar
) -> Observation:
    """Carry out one action and time it; what the policy did wrong becomes an observation it can
    learn from.
    """
    started = time.perf_counter()
    if isinstance(action, FormatFault):
        observation = text_observation(
            grammar.fault_text(action), "format", Outcome.FAULT, action.fault
        )
    else:
        tool = next((t for t in tools if t.accepts(action)), None)
        if tool is None:
            raise InvariantError(
                f"sample {sample.sample_id}: the recipe has no tool for {type(action).__name__}"
            )
        try:
            observation = await tool.run(action, sample)
        except ToolError as error:
            observation = text_observation(str(error), tool.name, Outcome.REJECTED)
    return replace(observation, seconds=time.perf_counter() - started)
