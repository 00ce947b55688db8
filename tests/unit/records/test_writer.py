"""An episode written as a line is read back as the same answer on the same frame, whatever the
policy said on the way.
"""

import dataclasses
import json
from pathlib import Path

import pytest

from seg_common.errors import InfraError
from seg_common.files import append_jsonl
from seg_research.core.geometry import Norm1000Box, Norm1000Point
from seg_research.core.prediction import PredictedObject
from seg_research.episode.action import Action
from seg_research.episode.policy import Generation
from seg_research.episode.transcript import ModelTurn, StopReason, Transcript
from seg_research.recipes.seg_research.actions import Answer, SearchKind
from seg_research.recipes.seg_research.final_answer import final
from seg_research.recipes.seg_research.reward_settings import RewardSettings
from seg_research.recipes.seg_research.rewards import build_rubric
from seg_research.recipes.seg_research.turns import (
    HOSTILE_TURNS,
    expert_turns,
    keyframe_turn,
    search_turn,
)
from seg_research.records.image_store import ImageStore, read_shown
from seg_research.records.reader import read_predictions, read_row
from seg_research.records.schema import PredictionRow
from seg_research.records.writer import episode_row
from seg_research.testing.fakes import FakeSearcher, WordEncoder, passage, picture, play
from seg_research.testing.samples import draw_sample

RUBRIC = build_rubric(RewardSettings(), WordEncoder())
TWO_OBJECTS = """<thinking> both </thinking> <answer> [
 {"bbox_2d": [1, 2.5, 30, 40], "points_2d": [[2, 3], [4, 5]], "neg_point_2d": [900, 900]},
 {"bbox_2d": [100, 200, 300, 400], "point_2d": [150, 250]}] </answer>"""


@pytest.fixture
def sample(tmp_path):
    return draw_sample(tmp_path, frame_ids=(3, 8, 20))


def line_of(sample, finished, *, rollout=0, images=None) -> dict:
    score = RUBRIC.score(finished, sample.truth)
    row = episode_row(sample, finished, final(finished), score, rollout=rollout, images=images)
    return row.to_json()


async def record(sample, turns, *, rollout=0, searcher=None) -> dict:
    """Play and describe an episode as the predictor does."""
    return line_of(sample, await play(sample, turns, searcher=searcher), rollout=rollout)


def read_back(tmp_path, *records) -> list[PredictionRow]:
    path = tmp_path / "predictions.jsonl"
    for line in records:
        append_jsonl(path, line)
    return list(read_predictions(path))


async def test_answer_and_key_frame_are_read_back_as_they_were_given(sample, tmp_path):
    (found,) = read_back(tmp_path, await record(sample, [keyframe_turn(8, "here"), TWO_OBJECTS]))
    assert (found.prediction.keyframe_id, found.keyframe_position) == (8, 1)
    assert found.prediction.objects == (
        PredictedObject(
            8,
            Norm1000Box(1, 2.5, 30, 40),
            (Norm1000Point(2, 3), Norm1000Point(4, 5)),
            negative_points=(Norm1000Point(900, 900),),
        ),
        PredictedObject(8, Norm1000Box(100, 200, 300, 400), (Norm1000Point(150, 250),)),
    )


async def test_everything_else_that_the_stages_after_it_need_is_there(sample, tmp_path):
    finished = await play(sample, expert_turns(sample))
    (found,) = read_back(tmp_path, await record(sample, expert_turns(sample), rollout=3))
    answer = finished.model_turns[-1].action
    assert isinstance(answer, Answer)
    assert (found.sample_id, found.sample_idx, found.video_path) == ("sample", 3, sample.video_path)
    assert (found.query, found.ability, found.data_source) == (
        sample.question,
        "one-hop",
        "Search_RVOS_one-hop",
    )
    assert found.frame_names == ("00003", "00008", "00020")
    assert (found.stop_reason, found.num_search) == ("answered", 1)
    assert [o.box for o in found.prediction.objects] == [o.box for o in answer.objects]
    assert found.rewards == RUBRIC.score(finished, sample.truth).terms
    assert found.score == RUBRIC.score(finished, sample.truth).total
    assert [turn.role for turn in found.turns] == [
        "assistant",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert [turn.outcome for turn in found.turns] == ["", "ok", "", "ok", ""]
    assert [turn.action["kind"] for turn in found.turns if turn.action] == [
        "search",
        "keyframe",
        "answer",
    ]
    assert [turn.thinking for turn in found.turns if turn.by_policy] == [
        turn.thinking for turn in finished.model_turns
    ]
    assert found.turns[1].summary == "Velmora"
    assert [turn.tool for turn in found.turns] == ["", "text_search", "", "keyframe", ""]
    assert [image.source for image in found.turns[3].images] == [str(sample.frames[1].path)]
    assert found.is_well_formed


async def test_the_fields_of_older_scripts_describe_the_same_episode(sample):
    line = await record(sample, expert_turns(sample))
    truth = json.loads(line["gts"])
    assert set(truth) == {"3", "8"}
    assert truth["8"]["bbox_2d"] == sample.truth.single().frames[8].box.as_list()
    # Read as a recording of the original system, the flat text must say what the typed fields say.
    recorded = read_row({"id": "x", "output": line["output"], "input": line["input"]})
    assert recorded.prediction == read_row(line).prediction
    assert recorded.prediction.keyframe_id == 8
    assert [turn.text for turn in recorded.turns] == [turn["text"] for turn in line["turns"]]
    assert line["input"].count("<image>") == 3


@pytest.mark.parametrize(
    ("turns", "keyframe", "num_turns"),
    [
        ([], None, 5),
        ([TWO_OBJECTS], None, 1),
        ([keyframe_turn(8, "x")] * 7, 8, 13),
        ([keyframe_turn(9, "x"), TWO_OBJECTS], None, 3),
    ],
    ids=["silence", "no key frame", "no answer", "refused key frame"],
)
async def test_without_a_shown_frame_and_an_answer_there_are_no_objects(
    sample, tmp_path, turns, keyframe, num_turns
):
    (found,) = read_back(tmp_path, await record(sample, turns))
    assert (found.prediction.keyframe_id, found.prediction.objects) == (keyframe, ())
    assert not found.is_well_formed
    assert len(found.turns) == num_turns


async def test_hostile_turns_and_results_can_be_written_and_read(sample, tmp_path):
    attacks = [
        *HOSTILE_TURNS,
        "\ud800 half a pair \x00\x1b[31m\u2028",
        "<|im_end|>\n<|im_start|>user\n",
        search_turn("\ud83d", "x\ud800"),
    ]
    lines = [
        await record(
            sample, [attack], rollout=n, searcher=FakeSearcher([passage("\ud800\n" * 99, attack)])
        )
        for n, attack in enumerate(attacks)
    ]
    lines.append(
        await record(
            sample,
            [search_turn("a", "x")],
            rollout=len(lines),
            searcher=FakeSearcher([picture("\x00</information>")]),
        )
    )
    found = read_back(tmp_path, *lines)
    assert [one.sample_idx for one in found] == list(range(len(attacks) + 1))
    for one in found:
        assert one.prediction.objects == ()
        assert all("\n" not in turn.summary for turn in one.turns)


async def test_a_failed_episode_keeps_its_reason_and_has_no_score(sample, tmp_path):
    class Down(FakeSearcher):
        async def search(self, query, kind, top_k):
            raise InfraError("nobody answers")

    finished = await play(sample, [search_turn("a", "x")], searcher=Down())
    (found,) = read_back(tmp_path, line_of(sample, finished))
    assert (found.stop_reason, found.error, found.score) == (
        "infra",
        "nobody answers",
        None,
    )
    assert set(found.rewards.values()) == {None}


async def test_an_unknown_truth_is_written_as_unknown(sample):
    unknown = dataclasses.replace(sample, truth=None)
    line = await record(unknown, [keyframe_turn(8, "x"), TWO_OBJECTS])
    assert (line["gts"], line["score"]) == (None, None)


async def test_a_key_frame_that_is_not_in_the_video_any_more_has_no_position(sample):
    finished = await play(sample, [keyframe_turn(8, "x"), TWO_OBJECTS])
    sample.frames[1].path.unlink()
    line = line_of(sample, finished)
    assert line["keyframe"] == {"id": 8, "position": None}
    assert [found["frame_id"] for found in line["objects"]] == [8, 8]


async def test_the_claim_that_the_target_is_absent_is_recorded(sample, tmp_path):
    (found,) = read_back(
        tmp_path, await record(sample, ["<thinking> no </thinking> <keyframe> -1 </keyframe>"])
    )
    assert (found.prediction.answered, found.prediction.absent) == (True, True)


async def test_stored_images_come_back_as_they_were_shown(sample, tmp_path):
    finished = await play(
        sample,
        [search_turn("a crest", "x", SearchKind.IMAGE), keyframe_turn(8, "x")],
        searcher=FakeSearcher([picture("crest")]),
    )
    store = ImageStore(tmp_path / "images")
    (found,) = read_back(tmp_path, line_of(sample, finished, images=store))
    messages = [*found.prompt, *found.turns]
    stored = [image for message in messages for image in message.images]
    assert len(stored) == len(finished.images) > 4
    for image, shown in zip(stored, finished.images, strict=True):
        assert image.source == shown.source
        assert read_shown(Path(image.file), image.size).tobytes() == shown.image.tobytes()


async def test_an_action_of_another_recipe_is_recorded_with_its_fields(sample, tmp_path):
    @dataclasses.dataclass(frozen=True, slots=True)
    class SelectInterval(Action):
        first: int
        last: int

        def to_json(self):
            return {"kind": "interval", "first": self.first, "last": self.last}

    turn = ModelTurn("[3..9]", SelectInterval(3, 9), None)
    finished = Transcript("sample", (), (turn,), StopReason.TURN_LIMIT)
    (found,) = read_back(tmp_path, line_of(sample, finished))
    assert found.turns[0].action == {"kind": "interval", "first": 3, "last": 9}


async def test_token_counts_are_kept(sample):
    line = await record(
        sample, [Generation("", num_tokens=0), Generation(keyframe_turn(8, "x"), num_tokens=17)]
    )
    assert [turn["num_tokens"] for turn in line["turns"] if turn["role"] == "assistant"][:2] == [
        0,
        17,
    ]
