"""One real training run: stock `main_ppo`, two GRPO steps, searches against a live server, pictures
that enter in the middle.
"""

import json
from itertools import groupby
from math import sqrt
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")
from safetensors.torch import load_file

from seg_research.cli.main import main
from seg_research.policies.processor import IMAGE_TOKEN, load_processor
from seg_research.training.launch.learning_curve import learning_curve

pytestmark = pytest.mark.verl

PROMPTS, ROLLOUTS, STEPS = 4, 4, 2


@pytest.fixture(scope="module")
def arguments(one_video, mini, talkative_model, search_url, tmp_path_factory) -> list[str]:
    values = {
        "hardware": "cpu",
        "search": "server",
        "seg.search.url": search_url,
        "seg.run_dir": tmp_path_factory.mktemp("grpo") / "run",
        "seg.threads": 2,
        "seg.log_tokens": "true",
        "actor_rollout_ref.model.path": talkative_model,
        "data.train_files": one_video,
        "data.val_files": mini.parquet("val"),
        "data.train_batch_size": PROMPTS,
        "actor_rollout_ref.actor.ppo_mini_batch_size": PROMPTS,
        "actor_rollout_ref.rollout.n": ROLLOUTS,
        "actor_rollout_ref.rollout.temperature": 0.6,
        # step 2 must still search; the tiny model's own rate may unlearn that in one update
        "actor_rollout_ref.actor.optim.lr": 1e-4,
        "trainer.total_training_steps": STEPS,
        # Half the square of the largest difference in log-probability, as a metric; the threshold
        # is never met, so nothing is left out.
        "algorithm.rollout_correction.rollout_rs": "token_k2",
        "algorithm.rollout_correction.rollout_rs_threshold": "1e9",
    }
    return ["train", *(f"{key}={value}" for key, value in values.items())]


@pytest.fixture(scope="module")
def run_dir(arguments) -> Path:
    """The folder of the finished run."""
    assert main(arguments) == 0
    return Path(next(a for a in arguments if a.startswith("seg.run_dir=")).partition("=")[2])


@pytest.fixture(scope="module")
def metrics(run_dir) -> list[dict]:
    return [
        json.loads(line)["data"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()
    ]


@pytest.fixture(scope="module")
def records(run_dir) -> list[dict]:
    return [
        json.loads(line)
        for path in (run_dir / "trajectories").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]


@pytest.fixture(scope="module")
def tokenizer(run_dir):
    return load_processor(run_dir / "policy").tokenizer


def observations(record) -> list[dict]:
    return [turn for turn in record["turns"] if turn["role"] != "assistant"]


def test_every_episode_of_both_steps_was_logged(records):
    assert (
        sorted(r["global_step"] for r in records)
        == [1] * PROMPTS * ROLLOUTS + [2] * PROMPTS * ROLLOUTS
    )
    assert {r["sample_idx"] for r in records} == set(range(ROLLOUTS))
    assert not any(r["validation"] or r["error"] for r in records)


def test_searches_reached_the_server_and_pictures_entered_in_the_middle(records):
    outcomes = {(o["tool"], o["outcome"]) for r in records for o in observations(r)}
    assert {("image_search", "ok"), ("text_search", "ok"), ("keyframe", "ok")} <= outcomes
    for step in (1, 2):
        pictures = [
            sum(len(o["images"]) for o in observations(r))
            for r in records
            if r["global_step"] == step
        ]
        # Sampled turns differ from run to run; with the six frames of the opening, two more make
        # eight pictures in one trajectory.
        assert max(pictures) >= 2


def test_rollout_and_actor_agree_on_every_log_probability(metrics):
    assert len(metrics) == STEPS
    for step in metrics:
        assert sqrt(2 * step["rollout_corr/rollout_rs_token_k2_max"]) <= 1e-3
        assert step["training/rollout_probs_diff_max"] <= 1e-3
        assert step["rollout_corr/rollout_rs_masked_fraction"] == 0


def test_the_mask_is_1_exactly_on_sampled_tokens(records, tokenizer):
    for record in records:
        tokens = record["tokens"]
        pieces = [
            (bool(mask), [token for token, _ in piece])
            for mask, piece in groupby(
                zip(tokens["response_ids"], tokens["response_mask"], strict=True),
                key=lambda pair: pair[1],
            )
        ]
        said = [turn for turn in record["turns"] if turn["role"] == "assistant"]
        sampled = [piece for mask, piece in pieces if mask]
        assert [tokenizer.decode(piece, skip_special_tokens=True) for piece in sampled] == [
            turn["text"] for turn in said
        ]
        assert [len(piece) for piece in sampled] == [turn["num_tokens"] for turn in said]
        shown = [
            tokenizer.decode(piece).replace(IMAGE_TOKEN, "") for mask, piece in pieces if not mask
        ]
        texts = [
            o["text"].replace("<image>", "<|vision_start|><|vision_end|>")
            for o in observations(record)
        ]
        assert [piece.removeprefix("<|im_end|>") for piece in shown] == [
            f"\n<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n" for text in texts
        ]
        assert {
            p
            for p, mask in zip(tokens["response_logprobs"], tokens["response_mask"], strict=True)
            if not mask
        } <= {0.0}
        assert not any(isinstance(p, str) or p > 0 for p in tokens["response_logprobs"])


def test_the_trainer_trained_on_exactly_the_logged_tokens(records, metrics):
    for step, measured in enumerate(metrics, 1):
        mine = [r["tokens"] for r in records if r["global_step"] == step]
        assert measured["perf/total_num_tokens"] == sum(
            len(t["prompt_ids"]) + len(t["response_ids"]) for t in mine
        )
        scores = [r["score"] for r in records if r["global_step"] == step]
        assert measured["critic/score/mean"] == pytest.approx(sum(scores) / len(scores), abs=1e-5)


def test_the_policy_was_trained_and_predicts(
    run_dir, talkative_model, metrics, mini, search_url, tmp_path
):
    policy = run_dir / "policy"
    assert max(step["actor/grad_norm"] for step in metrics) > 0
    before, after = (
        load_file(folder / "model.safetensors") for folder in (talkative_model, policy)
    )
    assert before.keys() == after.keys()
    assert any((before[name] != after[name]).any() for name in before)
    assert (policy / "episode.json").read_text() == (talkative_model / "episode.json").read_text()
    out = tmp_path / "predictions.jsonl"
    command = [
        "predict",
        "--data",
        str(mini.parquet("test")),
        "--model",
        str(policy),
        "--search-url",
        search_url,
        "--out",
        str(out),
    ]
    assert main([*command, "--limit", "2", "--threads", "1"]) == 0
    assert len(out.read_text().splitlines()) == 2


def test_the_learning_curve_is_the_mean_of_the_log(run_dir, records):
    curve = learning_curve(run_dir)
    assert [row["step"] for row in curve] == [1, 2]
    for row in curve:
        mine = [r for r in records if r["global_step"] == row["step"]]
        assert row["episodes"] == len(mine) == PROMPTS * ROLLOUTS
        assert row["searches"] == pytest.approx(sum(r["num_search"] for r in mine) / len(mine))
        assert row["reward"] == pytest.approx(sum(r["score"] for r in mine) / len(mine))


def test_a_finished_run_is_not_run_again(run_dir, arguments, capsys):
    def state():
        return {path: path.stat().st_mtime_ns for path in run_dir.rglob("*") if path.is_file()}

    before = state()
    assert main(arguments) == 0
    assert "finished" in capsys.readouterr().out
    assert state() == before
