"""The results page of the mini experiments says what the CSVs say."""

import hashlib
import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="matplotlib comes with the dev extra")

MINI = Path(__file__).parents[3] / "examples" / "train" / "mini"
ABILITIES = ("in-video", "one-hop", "multi-hop", "relational")
# Mean J&F and searches by ability of each experiment after training; seeds lie 1 above and below.
JF = {"hierarchical": 60.0, "outcome_only": 50.0, "rigid_steps": 59.0}
SEARCHES = {
    "hierarchical": (0.0, 1.0, 2.0, 1.5),
    "outcome_only": (0.0, 0.0, 0.0, 0.0),
    "rigid_steps": (1.0, 1.0, 1.0, 1.0),
}


@pytest.fixture(scope="module")
def results():
    spec = importlib.util.spec_from_file_location("mini_results", MINI / "results.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["mini_results"] = module
    spec.loader.exec_module(module)
    return module


GREEDY_GAIN = 2.0


def write_log(
    checkpoint: Path, jf: float, searches: tuple[float, ...], *, greedy: bool = True
) -> None:
    """Write one judged checkpoint with one question an ability; greedy decoding is a little better
    than sampling.
    """
    write_judged(checkpoint / "sampled", jf, searches)
    if greedy:
        write_judged(checkpoint / "greedy", jf + GREEDY_GAIN, searches)


def write_judged(folder: Path, jf: float, searches: tuple[float, ...]) -> None:
    folder.mkdir(parents=True)
    samples, lines = {}, []
    for ability, count in zip(ABILITIES, searches, strict=True):
        samples[f"q-{ability}"] = [jf / 100, jf / 100, ability]
        rewards = {"box_iou": 1.0, "box_l1": 0.5, "point": None, "keyframe": 0.0, "format": 1.0}
        lines.append(json.dumps({"id": f"q-{ability}", "num_search": count, "rewards": rewards}))
    (folder / "predictions.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "result.json").write_text(json.dumps({"samples": samples}))


def write_trajectories(trajectories: Path, name: str) -> None:
    """Log two training steps of an experiment."""
    trajectories.mkdir(parents=True)
    record = {
        "id": "a",
        "validation": False,
        "score": 1.0,
        "stop_reason": "answered",
        "num_response_tokens": 200,
    }
    record["rewards"] = {"box_iou": 1.0, "point": None, "format": 1.0}
    # In the first step all search alike; in the second as often as the experiment will.
    by_ability = {
        1: dict.fromkeys(ABILITIES, 0.5),
        2: dict(zip(ABILITIES, SEARCHES[name], strict=True)),
    }
    records = [
        record
        | {
            "global_step": step,
            "ability": ability,
            "sample_idx": number,
            "num_search": searches,
        }
        for step, found in by_ability.items()
        for number, (ability, searches) in enumerate(found.items())
    ]
    (trajectories / "worker-0.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))


@pytest.fixture
def raw(tmp_path) -> Path:
    """Raw logs of three experiments with two seeds, and of a run that is not finished."""
    raw = tmp_path / "raw"
    for seed in (0, 1):
        write_log(raw / "cold_start" / f"seed{seed}", 40.0, (0.5, 0.5, 0.5, 0.5), greedy=seed == 0)
    for name, jf in JF.items():
        for seed in (0, 1):
            run = raw / "runs" / name / f"seed{seed}"
            write_log(run / "step2", jf + 2 * seed - 1, SEARCHES[name])
            trajectories = run / "train" / "trajectories"
            write_trajectories(trajectories, name)
            stage = {"commit": "c0ffee" + 10 * "0", "changed_files": [], "minutes": 3.5}
            (run / "trained.json").write_text(json.dumps(stage | {"overrides": []}))
            (run / "finished.json").write_text(
                json.dumps(stage | {"changed_files": ["M x"], "minutes": 1.5 + seed})
            )
    (raw / "runs" / "hierarchical" / "seed2" / "train").mkdir(parents=True)
    plan = {
        "experiments": {name: [] for name in JF},
        "figures": {"presets": {"title": "Presets", "show": list(JF)}},
    }
    plan["figures"]["modes"] = {"title": "Modes", "show": ["hierarchical", "hierarchical_compat"]}
    plan["model"] = str(tmp_path / "model")
    (tmp_path / "model").mkdir()
    scores = {"with passages": 60.0, "passages withheld": 25.0, "any figure, best frame": 20.0}
    (tmp_path / "model" / "acceptance_checks.json").write_text(
        json.dumps({"questions": 80, "J&F": scores})
    )
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    plan["versions"] = {"quick": {"steps": 2, "eval_every": 2}}
    plan["judging"] = {"seed": 3}
    manifest = {
        "plan": plan,
        "sizes": {"steps": 2, "eval_every": 2},
        "model_sha256": hashlib.sha256(b"weights").hexdigest(),
    }
    manifest["versions"] = {"torch": "2"}
    (raw / "manifest.json").write_text(json.dumps(manifest))
    return raw


def test_page_judges_the_claims(results, raw, tmp_path):
    out = tmp_path / "page"
    assert results.main([str(raw), "--out", str(out)]) == 0
    page = (out / "mini.md").read_text()
    verdicts = {
        line.split("|")[1].strip(): line.split("|")[3].strip()
        for line in page.splitlines()
        if line.count("|") == 4
    }
    searching = (
        "interleaved search beats answering without what it finds, by 20 points (cold "
        "start, "
        "greedy, 80 other questions)"
    )
    assert verdicts[searching] == "agrees"
    assert verdicts["RL from the cold start gains at least 10 points of J&F (sampled)"] == "agrees"
    assert verdicts["the hierarchical reward beats outcome only (greedy)"] == "agrees"
    # the seeds overlap
    assert (
        verdicts["the hierarchical reward beats rigid imitation of steps (sampled)"]
        == "**does not agree**"
    )
    assert (
        "hierarchical 60.0 (59.0 to 61.0), outcome_only 50.0 (49.0 to 51.0); difference +10.0, "
        "95 % +10.0 to +10.0 | agrees" in page
    )
    assert "| 0.50 against 0.50, then 2.00 against 1.00 | agrees |" in page
    assert "| in-video questions cease to be searched | 0.50, then 0.00 | agrees |" in page
    assert (
        "sooner than outcome only | 1.25 (1.25 to 1.25), 0.25 (0.25 to 0.25) searches over all "
        "steps | agrees |" in page
    )
    assert verdicts["under the published rewards the policy farms searches"] == "not run"
    efficient = (
        "the hierarchical reward makes more episodes search exactly as often as needed "
        "than {} "
        "(sampled)"
    )
    assert verdicts[efficient.format("hierarchical_compat")] == "not run"
    assert (
        f"| {efficient.format('outcome_only')} | 75.0 % (75.0 to 75.0) against 25.0 % (25.0 to "
        "25.0) | agrees |" in page
    )
    assert (
        "| hierarchical | 62.0 | 60.0 | 60.0 to 60.0 | 59.0 to 61.0 (2) | 1.50 | 100 % | 75 % "
        "| 1.12 | 0.00 | 1.00 | 2.00 | 1.50 |" in page
    )
    assert "Not finished, and not counted: hierarchical/seed2" in page
    assert all((out / f"{name}.svg").stat().st_size > 5000 for name in ("presets", "abilities"))
    assert not (out / "modes.svg").exists(), "one of the two was not run"
    assert "experiments.py --quick" in page
    assert "Training: commit `c0ffee000000`, at most 4 minutes a run." in page
    assert "Judging: commit `c0ffee000000` with changed files, at most 2 minutes a run." in page


def test_farming_is_seen_where_it_is(results, raw, tmp_path):
    # The published rewards' run is that of outcome only, and ours that of rigid steps, which
    # searches once more.
    for name, stands_for in (
        ("outcome_only", "hierarchical"),
        ("rigid_steps", "hierarchical_compat"),
    ):
        shutil.rmtree(raw / "runs" / stands_for, ignore_errors=True)
        (raw / "runs" / name).rename(raw / "runs" / stands_for)
    manifest = json.loads((raw / "manifest.json").read_text())
    manifest["plan"]["experiments"] = {"hierarchical": [], "hierarchical_compat": []}
    (raw / "manifest.json").write_text(json.dumps(manifest))
    assert results.main([str(raw), "--out", str(tmp_path / "page")]) == 0
    page = (tmp_path / "page" / "mini.md").read_text()
    assert (
        "| under the published rewards the policy farms searches | 1.00 searches an episode "
        "against 0.00 | agrees |" in page
    )
    assert (
        "than hierarchical_compat (sampled) | 25.0 % (25.0 to 25.0) against 50.0 % (50.0 to "
        "50.0) | **does not agree** |" in page
    )
    assert (tmp_path / "page" / "modes.svg").is_file()


def test_questions_of_one_clip_are_drawn_together(results):
    page = sys.modules["results_page"]
    ids = [f"test_{clip:04d}_{number}" for clip in range(40) for number in range(4)]
    alike = page.interval_over(page.pd.Series([float(name[5:9] < "0020") for name in ids], ids))
    spread = page.interval_over(page.pd.Series([float(name[-1] < "2") for name in ids], ids))
    # 40 clips that are all right or all wrong: ±1.96·√(0.25 / 40). Clips that are all half right do
    # not differ.
    assert alike == pytest.approx((0.345, 0.655), abs=0.03)
    assert spread == pytest.approx((0.5, 0.5))


def test_an_examination_of_other_weights_counts_for_nothing(results, raw, tmp_path):
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other weights")
    assert results.main([str(raw), "--out", str(tmp_path / "page")]) == 0
    page = (tmp_path / "page" / "mini.md").read_text()
    assert (
        "| interleaved search beats answering without what it finds, by 20 points |  | not run |"
        in page
    )


def test_the_page_is_made_again_from_the_tables_byte_for_byte(results, raw, tmp_path):
    out = tmp_path / "page"
    results.main([str(raw), "--out", str(out)])
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert results.main(["--page-only", "--out", str(out)]) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_without_a_finished_run_the_user_is_told_what_to_do(results, tmp_path, capsys):
    assert results.main([str(tmp_path), "--out", str(tmp_path / "page")]) == 1
    assert "run experiments.py first" in capsys.readouterr().err
    assert not (tmp_path / "page").exists()
