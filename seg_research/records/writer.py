"""A finished episode as one row of `predictions.jsonl` and of the training log."""

from __future__ import annotations

from dataclasses import replace

from seg_research.core.prediction import Prediction
from seg_research.core.video import FramePosition, open_video, position_of
from seg_research.data.sample import Sample
from seg_research.episode.transcript import Message, ModelTurn, Observation, Transcript
from seg_research.records.image_store import ImageStore
from seg_research.records.schema import (
    MODEL_ROLE,
    ImageRecord,
    MessageRecord,
    PredictionRow,
    TurnRecord,
)
from seg_research.records.truth import truth_to_json
from seg_research.rewards.rubric import Score

_SEARCH = "search"
"""Kind of the search tool's action."""


def episode_row(
    sample: Sample,
    transcript: Transcript,
    prediction: Prediction,
    score: Score,
    *,
    rollout: int,
    images: ImageStore | None = None,
) -> PredictionRow:
    """Describe an episode; also carries the fields that the existing post-segmentation scripts of
    this field read (`input`, `output`, `gts`).

    Args:
        sample: what was asked.
        transcript: what happened.
        prediction: what the recipe reads in it.
        score: what it earned.
        rollout: number of the attempt.
        images: given, the row holds all that was shown, so that it can be learnt from
            (`seg-research sft`): the opening prompt, and of each image a file and its shown size.

    Raises:
        UsageError: a frame was chosen, and the video is not there.
    """
    return PredictionRow(
        sample_id=sample.sample_id,
        sample_idx=rollout,
        video_path=sample.video_path,
        frame_names=tuple(frame.path.stem for frame in sample.offered),
        query=sample.question,
        ability=sample.ability,
        data_source=sample.data_source,
        prompt=None if images is None else tuple(_message(m, images) for m in transcript.prompt),
        turns=tuple(_turn(turn, images) for turn in transcript.turns),
        prediction=prediction,
        keyframe_position=_keyframe_position(sample, prediction),
        stop_reason=transcript.stop,
        error=transcript.error,
        score=score.total,
        rewards={**score.terms, **score.factors},
        num_search=sum(
            shown is not None and turn.action.kind == _SEARCH
            for turn, shown in transcript.exchanges()
        ),
        extra={
            "input": "\n".join(f"{m.role}: {m.plain()}" for m in transcript.prompt),
            "output": _flat(transcript),
            **truth_to_json(sample.truth),
        },
    )


def with_timings(row: PredictionRow, transcript: Transcript) -> PredictionRow:
    """Add the wall-clock seconds of an episode to its row."""
    timings = {
        "generate_s": sum(turn.seconds for turn in transcript.model_turns),
        "tools_s": sum(shown.seconds for shown in transcript.observations),
    }
    return replace(row, timings=timings)


def _keyframe_position(sample: Sample, prediction: Prediction) -> FramePosition | None:
    if prediction.keyframe_id is None:
        return None
    return position_of(prediction.keyframe_id, open_video(sample.video_path).names)


def _message(message: Message, images: ImageStore) -> MessageRecord:
    stored = tuple(images.reference(image) for image in message.images)
    return MessageRecord(message.role, message.plain(), stored)


def _turn(turn: ModelTurn | Observation, images: ImageStore | None) -> TurnRecord:
    if isinstance(turn, ModelTurn):
        return TurnRecord(
            MODEL_ROLE,
            turn.text,
            thinking=turn.thinking,
            action=turn.action.to_json(),
            num_tokens=turn.num_tokens,
        )
    return TurnRecord(
        turn.message.role,
        turn.message.plain(),
        tool=turn.tool,
        outcome=turn.outcome,
        summary=turn.summary,
        images=tuple(
            ImageRecord(image.source) if images is None else images.reference(image)
            for image in turn.message.images
        ),
    )


def _flat(transcript: Transcript) -> str:
    """Write the episode after its prompt as one ChatML string, images as <image>."""
    pieces = [
        f"{turn.text}<|im_end|>\n"
        if isinstance(turn, ModelTurn)
        else f"<|im_start|>{turn.message.role}\n{turn.message.plain()}<|im_end|>\n"
        "<|im_start|>assistant\n"
        for turn in transcript.turns
    ]
    return "".join(pieces)
