"""What an episode finally claims: the last key frame that was really shown before the answer, and
the answer.
"""

from __future__ import annotations

from typing import NamedTuple

from seg_research.core.prediction import PredictedObject, Prediction
from seg_research.core.video import FrameId
from seg_research.episode.transcript import Outcome, Transcript
from seg_research.recipes.seg_research.actions import Answer, Search, ShowFrame


class Verdict(NamedTuple):
    """Key frame and answer; each None where the policy gave none. An answer without a key frame
    locates nothing.
    """

    keyframe: FrameId | None
    answer: Answer | None

    @property
    def says_absent(self) -> bool:
        """Tell whether the policy claims that the target is not in the video."""
        return self.answer is not None and not self.answer.objects

    @property
    def is_complete(self) -> bool:
        """Tell whether there is something to judge: regions on a frame that was shown, or the claim
        that there are none.
        """
        return self.says_absent or (self.answer is not None and self.keyframe is not None)


def read_verdict(transcript: Transcript) -> Verdict:
    """Read the verdict from typed model turns. A key frame counts if its image was shown; the
    last one before the answer wins.
    """
    keyframe: FrameId | None = None
    for turn, observation in transcript.exchanges():
        match turn.action:
            case ShowFrame(frame_id=frame_id) if (
                observation is not None and observation.outcome is Outcome.OK
            ):
                keyframe = frame_id
            # In rollouts of other systems the claim "absent" may have been refused; what came after
            # it counts.
            case Answer() as answer if answer.objects or observation is None:
                return Verdict(keyframe, answer)
            case _:
                pass
    return Verdict(keyframe, None)


def final(transcript: Transcript) -> Prediction:
    """Return what an episode finally claims; an answer without a key frame locates nothing."""
    keyframe, answer = read_verdict(transcript)
    objects: tuple[PredictedObject, ...] = ()
    if answer is not None and keyframe is not None:
        objects = tuple(
            PredictedObject(keyframe, region.box, region.points, region.negative_points)
            for region in answer.objects
        )
    absent = answer is not None and not answer.objects
    return Prediction(objects, answer is not None, absent, keyframe)


def count_searches(transcript: Transcript) -> int:
    """Count searches that reached the tool, whatever came back."""
    return sum(
        isinstance(turn.action, Search) and observation is not None
        for turn, observation in transcript.exchanges()
    )
