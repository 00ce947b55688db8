"""Why a number that was recorded is another one now: which rule of ours, or of the original's, made
the difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from seg_research.data.sample import GroundTruth
from seg_research.episode.action import FormatFault
from seg_research.episode.transcript import Transcript
from seg_research.recipes.judge import OTHER_SETTINGS, differ
from seg_research.recipes.seg_research.compat import text as read
from seg_research.recipes.seg_research.compat.terms import well_formed
from seg_research.recipes.seg_research.final_answer import read_verdict
from seg_research.recipes.seg_research.terms.process import useful_searches

OUTCOME = ("box_iou", "box_l1", "point", "keyframe")
PROCESS = ("guidance", "tapering", "format")

EDITED = (
    "not what the original's definition gives: the line was edited, or another version wrote it"
)
VALIDATION = "recorded by the original's validation, which pays the IoU alone"
ANSWERED_ONLY = "paid only with a usable answer"
NO_KEYFRAME = "no offered key frame was chosen before the answer"
LAST_KEYFRAME = (
    "the last key frame before the answer counts, in the original the first one named anywhere"
)
OTHER_ANSWER = (
    "the answer is read from an answering turn, in the original from the first tags on one line "
    "anywhere"
)
SAYS_ABSENT = "the policy says that the target is absent, which the original cannot read"
NOT_IN_A_TURN = "the tags stand in an observation or inside a thought"
OTHER_POINT_RULE = (
    "a point counts inside the target: in its mask where the line holds one, else near its deepest "
    "place and in its box"
)
SEVERAL_OBJECTS = "several objects locate nothing"
MALFORMED_TURN = "some turn is malformed"
THOUGHTLESS_TURN = "some turn has no thought"
EXACT_KEYS = "the original wants exactly one box and one point, and a thought right before each"
USEFUL_SEARCHES = "repeated, refused and fruitless searches are not paid"
CAPPED = "searches beyond those the question needs are not paid"
OTHER_QUERY = "another query is taken for the first"
CARRIED_OUT = "searches are counted that were carried out, in the original all tags"


def reason_between(
    name: str,
    transcript: Transcript,
    truth: GroundTruth,
    robust: Mapping[str, float | None],
    original: Mapping[str, float | None],
) -> str:
    """Tell why the robust and the original definition of `name` differ on a transcript; `robust`
    and `original` are the terms of each.
    """
    match name:
        case "box_iou" | "box_l1" | "point" | "keyframe":
            return _outcome_reason(name, transcript)
        case "format":
            return _format_reason(transcript)
        case "tapering":
            return _tapering_reason(transcript, truth)
        case "guidance":
            return OTHER_QUERY if read_verdict(transcript).answer else ANSWERED_ONLY
        case "num_search":
            return CARRIED_OUT
        case "process":
            changed = [
                part
                for part in ("guidance", "tapering", "format")
                if differ(robust.get(part), original.get(part))
            ]
            reasons = [
                f"{part}: {reason_between(part, transcript, truth, robust, original)}"
                for part in changed
            ]
            return "; ".join(reasons) or OTHER_SETTINGS
        case _:
            return OTHER_SETTINGS


def reason_of_score(changed: Sequence[str], recorded: Mapping[str, float]) -> str:
    """Tell why a score is another one, given the names of the terms that are."""
    if changed:
        return f"follows from {', '.join(changed)}"
    return VALIDATION if recorded.get("acc") == recorded["score"] else OTHER_SETTINGS


def _outcome_reason(name: str, transcript: Transcript) -> str:
    verdict, text = read_verdict(transcript), read.decoded_response(transcript)
    if verdict.answer is None:
        return _why_no_answer(transcript)
    if verdict.says_absent:
        return SAYS_ABSENT
    if verdict.keyframe is None:
        return NO_KEYFRAME
    body = read.first_answer_on_one_line(text)
    if body is None or body not in transcript.model_turns[-1].text:
        return OTHER_ANSWER
    if read.first_keyframe(text) != str(verdict.keyframe):
        return LAST_KEYFRAME
    if len(verdict.answer.objects) > 1:
        return SEVERAL_OBJECTS
    return OTHER_POINT_RULE if name == "point" else OTHER_SETTINGS


def _why_no_answer(transcript: Transcript) -> str:
    for turn in transcript.model_turns:
        if isinstance(turn.action, FormatFault) and "<answer>" in turn.text:
            return f"the answer is refused ({str(turn.action.fault).replace('_', ' ')})"
    return NOT_IN_A_TURN


def _format_reason(transcript: Transcript) -> str:
    verdict = read_verdict(transcript)
    if verdict.says_absent:
        return SAYS_ABSENT
    if any(isinstance(turn.action, FormatFault) for turn in transcript.model_turns):
        return MALFORMED_TURN
    if any(not turn.thinking for turn in transcript.model_turns):
        return THOUGHTLESS_TURN
    if verdict.is_complete and not well_formed(read.decoded_response(transcript)):
        return EXACT_KEYS
    return NOT_IN_A_TURN if verdict.answer is None else NO_KEYFRAME


def _tapering_reason(transcript: Transcript, truth: GroundTruth) -> str:
    if read_verdict(transcript).answer is None:
        return ANSWERED_ONLY
    useful = len(useful_searches(transcript))
    if useful != read.count_thoughtful_searches(read.decoded_response(transcript)):
        return USEFUL_SEARCHES
    if 0 < len(truth.steps) < useful:
        return CAPPED
    return f"format: {_format_reason(transcript)}"
