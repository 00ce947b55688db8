"""Files scored anew: rows in order, nothing lost, every disagreement with its reason."""

import json

import pytest

from seg_research.cli.main import main
from seg_research.evaluation.rescore_rewards import rescore
from seg_research.evaluation.rescore_summary import RescoreSummary
from seg_research.recipes.judge import OTHER_SETTINGS
from seg_research.recipes.seg_research.compat import disagreement_reasons as differences
from seg_research.recipes.seg_research.compat.judge import two_definitions
from seg_research.recipes.seg_research.reward_settings import Mode, RewardSettings
from seg_research.testing.fakes import WordEncoder

GTS = json.dumps(
    {
        "3": {
            "bbox_2d": [100, 100, 300, 500],
            "point_2d": [200, 300],
            "area": 1.0,
            "max_conn_area": 0.75,
        }
    }
)
KEYFRAME = "<thinking> t </thinking>\n<keyframe> 3 </keyframe>"
ANSWER = (
    "<thinking> t </thinking>\n<answer> "
    '{"bbox_2d": [100, 100, 300, 500], "point_2d": [200, 300]} </answer>'
)
SEARCH = '<thinking> t </thinking>\n<search> {"name": "text_search", "query": "who"} </search>'


def told(text):
    return f"<|im_end|>\n<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


PERFECT = SEARCH + told("found") + KEYFRAME + told("shown") + ANSWER


def line(output=PERFECT, **fields):
    return {"input": "", "output": output, "gts": GTS} | fields


def recorded(output=PERFECT, *, outcome=(1.0, 1.0, 1.0, 0.75), process, num_search=1.0):
    """A line with the scores that the original wrote."""
    names = ("iou_score", "box_l1_score", "point_l1_score", "keyframe_score")
    fields = dict(zip(names, outcome, strict=True)) | {
        "process_score": process,
        "num_search": num_search,
    }
    return line(output, **fields, score=sum(outcome) + process)


@pytest.fixture
def score(tmp_path):
    """Score lines; returns the rows of the result file, the rows themselves and what is to be
    printed.
    """

    def run(*lines, mode="compat"):
        source, out = tmp_path / "rollouts.jsonl", tmp_path / "out.json"
        source.write_text("".join(x if isinstance(x, str) else json.dumps(x) + "\n" for x in lines))
        judge = two_definitions(Mode(mode), RewardSettings(), WordEncoder())
        summary = RescoreSummary()
        for row in rescore(source, judge, out, lambda _: None):
            summary.add(row)
        return json.loads(out.read_text())["rows"], summary.to_markdown()

    return run


def reasons(row):
    return {changed["name"]: changed["reason"] for changed in row.get("disagreements", ())}


def test_annotated_steps_give_guidance(score):
    (row,), shown = score(line(steps=["find out who"]))
    assert row["guidance_source"] == "steps"
    assert row["terms"] == {
        "box_iou": 1.0,
        "box_l1": 1.0,
        "point": 1.0,
        "keyframe": 0.75,
        "format": 1.0,
        "tapering": pytest.approx(0.91),
        "guidance": 1.0,
    }
    assert row["score"] == 3.75 + 0.5 * (1 + row["terms"]["tapering"])
    assert "1 computed from the annotated steps" in shown


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_guidance_is_recovered_from_the_process_score(score, guidance):
    process = 0.5 * (guidance + (1 - (1 - 0.7) ** 2.0))
    (row,), shown = score(recorded(process=process))
    assert (row["guidance_source"], row["terms"]["guidance"], row["process"]) == (
        "recovered",
        guidance,
        process,
    )
    assert row["score"] == 3.75 + process
    assert reasons(row) == {}
    assert "1 recovered" in shown


def test_a_process_score_that_is_the_format_tells_that_there_were_no_steps(score):
    (row,), shown = score(recorded(process=1.0))
    assert (row["guidance_source"], row["terms"]["guidance"], row["score"]) == (None, None, 4.75)
    assert "1 without a value" in shown


def test_a_line_that_fits_both_kinds_of_question_is_decided_by_the_others(score):
    nothing = recorded("", outcome=(0.0,) * 4, process=0.0, num_search=0.0)
    (row,), _ = score(nothing)
    assert (row["guidance_source"], row["terms"]["guidance"], row["process"]) == (None, None, 0)
    rows, shown = score(nothing, recorded(process=1.0))
    assert [row["terms"]["guidance"] for row in rows] == [None, None]
    assert "guidance: 2 without a value" in shown
    rows, shown = score(nothing, recorded(process=0.955))
    assert [row["terms"]["guidance"] for row in rows] == [0, 1]
    assert "guidance: 2 recovered from the recorded process score" in shown


def test_another_question_decides_nothing(score):
    nothing = recorded("", outcome=(0.0,) * 4, process=0.0, num_search=0.0)
    rows, _ = score(nothing | {"gts": GTS.replace("100", "101")}, recorded(process=0.955))
    assert [row["terms"]["guidance"] for row in rows] == [None, 1]


def test_lines_of_a_question_that_contradict_each_other_give_no_guidance(score):
    rows, _ = score(recorded(process=0.955), recorded(process=1.0))
    assert [row["guidance_source"] for row in rows] == [None, None]


def test_without_recorded_scores_the_process_part_is_the_format(score):
    (row,), _ = score(line())
    assert (row["terms"]["guidance"], row["guidance_source"], row["process"], row["score"]) == (
        None,
        None,
        1.0,
        4.75,
    )


def test_known_steps_beat_what_was_recorded(score):
    (row,), _ = score(recorded(process=0.455) | {"steps": []})
    assert (row["guidance_source"], row["process"]) == (None, 1.0)
    assert reasons(row) == {"process": differences.EDITED, "score": "follows from process"}


def test_an_edited_score_is_told(score):
    (row,), shown = score(recorded(process=1.0) | {"iou_score": 0.0})
    assert reasons(row) == {"box_iou": differences.EDITED}
    assert f"    1  box_iou: {differences.EDITED}" in shown
    assert "1 of 1 rows" in shown


def test_a_score_that_is_no_sum_of_its_terms(score):
    (row,), _ = score(recorded(process=1.0) | {"score": 3.0})
    assert reasons(row) == {"score": OTHER_SETTINGS}


def test_validation_records_hold_the_iou_alone(score):
    (row,), _ = score(line(acc=1.0, score=1.0, reward=1.0, num_search=1))
    assert row["terms"]["acc"] == 1.0
    assert reasons(row) == {"score": differences.VALIDATION}


TWO_FRAMES = KEYFRAME.replace("3", "4") + told("no") + KEYFRAME + told("shown") + ANSWER
MULTI_LINE = PERFECT.replace("<answer> ", "<answer>\n")
MISSPELT = PERFECT.replace("point_2d", "point_2_d")
OUT_OF_PLACE = SEARCH + told(KEYFRAME + ANSWER) + "<thinking> t </thinking>"


@pytest.mark.parametrize(
    ("output", "outcome", "process", "expected"),
    [
        (TWO_FRAMES, (0, 0, 0, 0), 1.0, {"box_iou": differences.LAST_KEYFRAME}),
        (MULTI_LINE, (0, 0, 0, 0), 1.0, {"box_iou": differences.OTHER_ANSWER}),
        (
            MISSPELT,
            (1, 1, 0, 0.75),
            0.85,
            {"box_iou": "the answer is refused (bad fields)", "point": None},
        ),
        (OUT_OF_PLACE, (1, 1, 1, 0.75), 0.955, {"box_iou": differences.NOT_IN_A_TURN}),
        (
            SEARCH,
            (0, 0, 0, 0),
            0.85,
            {
                "process": (
                    f"guidance: {differences.ANSWERED_ONLY}; tapering: {differences.ANSWERED_ONLY}"
                )
            },
        ),
        (
            SEARCH + told("a") + PERFECT,
            (1, 1, 1, 0.75),
            0.9865,
            {"process": f"tapering: {differences.USEFUL_SEARCHES}"},
        ),
        (SEARCH, (0, 0, 0, 0), 0.85, {"num_search": differences.CARRIED_OUT}),
    ],
)
def test_why_robust_mode_differs(score, output, outcome, process, expected):
    (row,), _ = score(
        recorded(
            output, outcome=outcome, process=process, num_search=float(output.count("<search>"))
        ),
        mode="robust",
    )
    assert {name: reasons(row).get(name) for name in expected} == expected


def test_our_lines_are_compared_by_our_names(score):
    own = {
        "schema_version": 1,
        "id": "x",
        "stop_reason": "no_action",
        "gts": GTS,
        "steps": [],
        "turns": [],
    }
    (row,), _ = score(
        own | {"rewards": {"box_iou": 1.0, "guidance": None}, "num_search": 0, "score": None},
        mode="robust",
    )
    assert reasons(row) == {"box_iou": OTHER_SETTINGS}


def test_an_infrastructure_failure_and_a_question_without_truth_are_not_scored(score):
    own = {
        "schema_version": 1,
        "id": "x",
        "stop_reason": "infra",
        "gts": GTS,
        "steps": [],
        "turns": [],
    }
    rows, _ = score(own, line(gts=None))
    assert [row["score"] for row in rows] == [None, None]
    assert all(value is None for row in rows for value in row["terms"].values())


def test_a_broken_line_is_told_and_the_rest_is_scored_in_order(score):
    rows, shown = score(
        line(), "{broken\n", "\n", "[1]\n", {"neither": 1}, line(output=5), line(KEYFRAME)
    )
    assert [row["line"] for row in rows] == [1, 2, 4, 5, 6, 7]
    assert [row["score"] for row in rows] == [4.75, None, None, None, None, 0.0]
    assert ["error" in row for row in rows] == [False, True, True, True, True, False]
    assert "| score | 2.3750 | 2 |" in shown


def test_many_rows_keep_their_order(score):
    rows, _ = score(*(line(PERFECT if index % 3 else KEYFRAME) for index in range(200)))
    assert [row["score"] for row in rows] == [4.75 if index % 3 else 0.0 for index in range(200)]


def test_the_command(tmp_path, capsys):
    source, out = tmp_path / "rollouts.jsonl", tmp_path / "out.json"
    source.write_text(json.dumps(recorded(process=1.0) | {"score": 3.0}) + "\n{\n")
    assert (
        main(
            [
                "score",
                str(source),
                "--recipe",
                "seg_research",
                "--mode",
                "compat",
                "--json",
                str(out),
            ]
        )
        == 1
    )
    shown = capsys.readouterr()
    assert "line 1: score 3 -> 4.75" in shown.out
    assert f"{source} line 2: not valid JSON" in shown.err
    assert len(json.loads(out.read_text())["rows"]) == 2


def test_the_command_without_a_result_file(tmp_path, capsys):
    source = tmp_path / "rollouts.jsonl"
    source.write_text(json.dumps(line()) + "\n")
    assert main(["score", str(source)]) == 0
    assert "| score | 4.7500 |" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["gone.jsonl"], ["gone.jsonl", "--recipe", "nonsense"]])
def test_the_command_complains(arguments, capsys):
    assert main(["score", *arguments]) == 2
    assert arguments[-1] in capsys.readouterr().err


def test_settings_of_a_checkpoint(tmp_path, capsys):
    source, model = tmp_path / "rollouts.jsonl", tmp_path / "model"
    source.write_text(json.dumps(line()) + "\n")
    model.mkdir()
    (model / "episode.json").write_text(json.dumps({"rewards": {"weights": {"box_iou": 2.0}}}))
    assert main(["score", str(source), "--settings", str(model)]) == 0
    assert "| score | 5.7500 |" in capsys.readouterr().out
