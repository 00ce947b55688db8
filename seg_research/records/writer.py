"""A finished episode as one JSON object: the line of `predictions.jsonl` and of the training log."""

from __future__ import annotations

import json
from typing import Any

from seg_research.data.sample import Sample
from seg_research.data.truth_json import recorded_truth_to_json
from seg_research.episode.transcript import Message, ModelTurn, Observation, Transcript
from seg_research.recipes.seg_research.final_answer import count_searches, read_verdict
from seg_research.records.image_store import PictureFolder
from seg_research.records.reader import SCHEMA_VERSION, action_to_json
from seg_research.rewards.rubric import Score


def episode_record(
    sample: Sample,
    transcript: Transcript,
    score: Score,
    *,
    rollout: int,
    keyframe_position: int | None,
    pictures: PictureFolder | None = None,
) -> dict[str, Any]:
    """Describe an episode; also carries the fields that the existing post-segmentation scripts of
    this field read.

    Args:
        sample: what was asked.
        transcript: what happened.
        score: what it earned.
        rollout: number of the attempt.
        keyframe_position: index of the key frame in the whole video; without it there is no place
            for the answer's objects.
        pictures: given, the record holds all that was shown, so that it can be learnt from
            (`seg-research sft`): the opening prompt, and of each picture a file and its shown size.
    """
    keyframe, answer = read_verdict(transcript)
    shown = keyframe is not None and keyframe_position is not None
    return {
        "schema_version": SCHEMA_VERSION,
        "id": sample.sample_id,
        "sample_idx": rollout,
        "video_path": str(sample.video_path),
        "frame_names": [frame.path.stem for frame in sample.offered],
        "query": sample.question,
        "ability": sample.ability,
        "data_source": sample.data_source,
        **(
            {}
            if pictures is None
            else {"prompt": [_message(message, pictures) for message in transcript.prompt]}
        ),
        "turns": [_turn(turn, pictures) for turn in transcript.turns],
        "keyframe": {"id": keyframe, "position": keyframe_position} if shown else None,
        "objects": action_to_json(answer)["objects"] if answer and shown else [],
        "stop_reason": transcript.stop,
        "error": transcript.error,
        "rewards": score.terms,
        "num_search": count_searches(transcript),
        "timings": {},
        "input": "\n".join(f"{m.role}: {m.plain()}" for m in transcript.prompt),
        "output": _flat(transcript),
        "gts": None
        if sample.truth is None
        else json.dumps(recorded_truth_to_json(sample.truth.targets)),
        "steps": list(sample.steps),
        "absent": sample.truth is not None and sample.truth.absent,
        "score": score.total,
    }


def _message(message: Message, pictures: PictureFolder) -> dict[str, Any]:
    return {
        "role": message.role,
        "text": message.plain(),
        "pictures": [pictures.reference(image) for image in message.images],
    }


def _turn(turn: ModelTurn | Observation, pictures: PictureFolder | None) -> dict[str, Any]:
    if isinstance(turn, ModelTurn):
        return {
            "role": "assistant",
            "text": turn.text,
            "action": action_to_json(turn.action),
            "num_tokens": turn.num_tokens,
            "images": [],
        }
    return {
        "role": turn.message.role,
        "text": turn.message.plain(),
        "action": None,
        "tool": turn.tool,
        "outcome": turn.outcome,
        "observation_summary": turn.summary,
        "images": [image.source for image in turn.message.images],
        **(
            {}
            if pictures is None
            else {"pictures": [pictures.reference(image) for image in turn.message.images]}
        ),
    }


def _flat(transcript: Transcript) -> str:
    """Write the episode after its prompt as one ChatML string, pictures as <image>."""
    pieces = [
        f"{turn.text}<|im_end|>\n"
        if isinstance(turn, ModelTurn)
        else f"<|im_start|>{turn.message.role}\n{turn.message.plain()}<|im_end|>\n<|im_start|>assistant\n"
        for turn in transcript.turns
    ]
    return "".join(pieces)
