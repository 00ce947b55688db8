"""Which lines are imitated, which are left out and counted, and which are refused in one line."""

import json

import pytest

pytest.importorskip("transformers", reason="models need the train extra")

from seg_common.errors import UsageError
from seg_research.training.sft.episodes import Selection, SftSettings
from seg_research.training.sft.prepare import encode_files


def line(**changes):
    whole = {
        "schema_version": 1,
        "id": "a",
        "prompt": [{"role": "user", "text": "which one?"}],
        "turns": [
            {"role": "assistant", "text": "<keyframe> 3 </keyframe>"},
            {"role": "user", "text": "Frame 3"},
            {"role": "assistant", "text": "<answer> x </answer>"},
        ],
        "stop_reason": "answered",
        "score": 0.5,
    }
    return {key: value for key, value in (whole | changes).items() if value is not None}


@pytest.fixture
def write(tmp_path):
    def write(*lines):
        path = tmp_path / "predictions.jsonl"
        path.write_text(
            "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines)
        )
        return path

    return write


ONE_TURN = line()["turns"][:1]


@pytest.mark.parametrize(
    ("given", "settings", "reason"),
    [
        (line(stop_reason="infra"), SftSettings(answered_only=False), "failing service"),
        (line(turns=[]), SftSettings(), "without a turn of the model"),
        (
            line(stop_reason="turn_truncated", turns=ONE_TURN),
            SftSettings(answered_only=False),
            "cut in the middle",
        ),
        (line(stop_reason="turn_limit"), SftSettings(), "without an answer"),
        (line(score=0.79), SftSettings(min_score=0.8), "below 0.8"),
        (line(score=None), SftSettings(min_score=0.8), "below 0.8"),
    ],
)
def test_left_out_and_counted(write, given, settings, reason):
    selection = Selection(settings)
    assert [
        episode.episode_id for episode in selection.read(write(given, line(id="good", score=0.8)))
    ] == ["good"]
    ((told, count),) = selection.left_out.items()
    assert reason in told
    assert count == 1


def test_a_wider_choice_takes_episodes_without_an_answer(write):
    path = write(line(stop_reason="too_long", turns=line()["turns"][:2]))
    (episode,) = Selection(SftSettings(answered_only=False)).read(path)
    assert [turn.role for turn in episode.turns] == ["assistant"], (
        "what was shown after the last turn teaches nothing"
    )


PICTURE = {"path": "/nowhere/a.png", "size": [32, 32]}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "line 2: not valid JSON"),
        (line(prompt=None), "line 2: has no 'prompt'.*seg-research predict"),
        (line(schema_version=7), "line 2: schema_version 7"),
        (line(stop_reason="finished"), "line 2: field 'stop_reason'"),
        (line(turns=[{"role": "assistant"}]), "line 2: field 'turns.0.text'"),
        (
            line(prompt=[{"role": "user", "text": "<image>"}]),
            "line 2: a user message has 1 times <image> but 0 images",
        ),
        (
            line(prompt=[{"role": "user", "text": "x", "pictures": [PICTURE]}]),
            "0 times <image> but 1 images",
        ),
        (
            line(
                prompt=[
                    {"role": "user", "text": "<image>", "pictures": [PICTURE | {"size": [0, 4]}]}
                ]
            ),
            "field 'prompt.0.pictures.0.size.0'",
        ),
        (line(turns=[*ONE_TURN, *ONE_TURN]), "follows another one"),
        (line(turns=[{"role": "user", "text": "x"}, *ONE_TURN]), "an observation must follow"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(write, bad, message):
    with pytest.raises(UsageError, match=message):
        list(Selection(SftSettings()).read(write(line(), bad)))


def test_a_missing_image_is_named(write, tiny_processor):
    path = write(line(prompt=[{"role": "user", "text": "<image>", "pictures": [PICTURE]}]))
    with pytest.raises(UsageError, match=r"episode a shows /nowhere/a.png, which is missing"):
        encode_files([path], tiny_processor, SftSettings(), 512, 0)


def test_what_is_too_long_is_left_out_whole_and_counted(write, tiny_processor):
    path = write(line(), line(id="long", prompt=[{"role": "user", "text": "which one? " * 200}]))
    encoded = encode_files([path], tiny_processor, SftSettings(), 128, 0)
    assert [row["id"] for row in encoded.rows] == ["a"]
    assert (
        encoded.describe("train")[1]
        == "train: 1 episodes left out: longer than data.max_length=128"
    )


@pytest.mark.parametrize("lines", [(), (line(score=0.1), line(id="b", stop_reason="no_action"))])
def test_nothing_to_learn_from(write, tiny_processor, lines):
    with pytest.raises(
        UsageError, match=r"nothing to learn from: (no episodes|1 .*, 1 .*); write some with"
    ):
        encode_files([write(*lines)], tiny_processor, SftSettings(min_score=0.5), 512, 0)


def test_the_seed_fixes_the_order(write, tiny_processor):
    path = write(*(line(id=str(i)) for i in range(20)))
    orders = [
        [row["id"] for row in encode_files([path], tiny_processor, SftSettings(), 512, seed).rows]
        for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])
