"""One trajectory as verl runs it: what it returns, what it logs, and which failures end the run
instead of vanishing.

Longer than 400 lines because every way in which a trajectory may end shares one stand-in for verl.
"""

import json
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from seg_research.recipes.seg_research.recipe import SegResearch

pytest.importorskip("verl", reason="verl comes with the train extra")

from seg_common.errors import InfraError, UsageError
from seg_research.core.video import read_image
from seg_research.data.rows import read_rows, read_samples
from seg_research.episode.transcript import ImageRef, Message, Observation, Outcome, Text
from seg_research.mini.tiny_settings import tiny_settings
from seg_research.recipes.hooks import TrainerHooks
from seg_research.recipes.seg_research.actions import Search
from seg_research.tools.show_frame import ShowFrameTool
from seg_research.training.launch.config import compose_config
from seg_research.training.rollout import agent_loop
from seg_research.training.rollout.agent_loop import SegAgentLoop
from seg_research.training.rollout.context import RolloutContext, context_of
from seg_research.training.rollout.dataset import FRAMES_KEY
from seg_research.training.rollout.text_encoder import MachineEncoder
from seg_research.training.run_contract import STOP_FILE, VALIDATION_KEY
from seg_research.training.trajectory import from_extra_fields

SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": -1}


class Server:
    """Says prepared turns, each closed by the end of turn."""

    def __init__(self, processor, turns):
        self.tokenizer, self.turns, self.seeds = processor.tokenizer, list(turns), []
        self.images = []

    async def generate(self, request_id, prompt_ids, sampling_params, image_data):
        self.images.append(list(image_data))
        self.seeds.append(sampling_params.get("seed"))
        text = self.turns.pop(0)
        ids = [*self.tokenizer.encode(text, add_special_tokens=False), self.tokenizer.eos_token_id][
            : sampling_params["max_tokens"]
        ]
        return SimpleNamespace(
            token_ids=ids,
            log_probs=[-0.5] * len(ids),
            stop_reason="completed",
            extra_fields={"global_steps": 4},
        )


class ImageSearch:
    """Finds the same image for every query, or fails."""

    name = "search"

    def __init__(self, image: Path, error: Exception | None = None):
        self.image, self.error = image, error

    def accepts(self, action):
        return isinstance(action, Search)

    async def run(self, action, sample):
        if self.error:
            raise self.error
        image = read_image(self.image).resize((32, 32))
        return Observation(
            Message("user", (Text("1. "), ImageRef(image, str(self.image)))),
            "image_search",
            Outcome.OK,
            "found",
            cached=True,
        )


@pytest.fixture(scope="module")
def composed(mini, tiny_folder):
    given = {
        "data.train_files": mini.parquet("train"),
        "data.val_files": mini.parquet("val"),
        "actor_rollout_ref.model.path": tiny_folder,
        "seg.search.text": mini.text,
    }
    return compose_config([f"{key}={value}" for key, value in given.items()])


def as_verl_gives(row: dict) -> dict:
    """A row of the data set with what verl adds to it."""
    place = {"global_steps": 3, "session_id": 1, "uid": "u", VALIDATION_KEY: False}
    return {**row, FRAMES_KEY: row["images"], **place}


@pytest.fixture
def play(composed, mini, tiny_processor, tmp_path, monkeypatch):
    """Return a function that runs one trajectory of the first training question; changes apply to
    `seg`.
    """
    sample, row = read_samples(mini.parquet("train"))[0], read_rows(mini.parquet("train"))[0]

    async def run(
        turns,
        *,
        error=None,
        changes=None,
        row_changes=None,
        limits=None,
        max_prompt_length=512,
        rollout=None,
        hooks=None,
    ):
        config = composed.copy()
        config.data.max_prompt_length = max_prompt_length
        config.seg.run_dir = str(tmp_path)
        for key, value in (changes or {}).items():
            config.seg[key] = value
        config.seg.episode.limits.update(limits or {})
        config.actor_rollout_ref.rollout.prompt_length = config.data.max_prompt_length
        run.context = context = RolloutContext(config)
        tools = (
            ImageSearch(sample.frames[0].path, error),
            ShowFrameTool(SegResearch().texts.show_frame, 96),
        )

        @asynccontextmanager
        async def lend_tools():
            yield tools

        monkeypatch.setattr(context, "tools", lend_tools)
        if hooks is not None:
            monkeypatch.setattr(context.recipe, "hooks", lambda: hooks)
        wrapped, data = SimpleNamespace(config=config), SimpleNamespace(config=config.data)
        config.actor_rollout_ref.rollout.update(rollout or {})
        run.server = Server(tiny_processor, turns)
        assert context_of(run.server, lambda: context) is context
        loop = SegAgentLoop(
            wrapped,
            run.server,
            tiny_processor.tokenizer,
            tiny_processor,
            None,
            data,
            hf_model_type="qwen3_vl",
        )
        return await loop.run(SAMPLING, **{**as_verl_gives(row), **(row_changes or {})})

    run.sample, run.row = sample, row
    return run


def logged(folder: Path) -> list[dict]:
    return [
        json.loads(line)
        for path in (folder / "trajectories").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]


def turns_for(sample) -> list[str]:
    frame = sample.frames[2].frame_id
    return [
        '<thinking> a </thinking>\n<search> {"name": "image_search", "query": "b"} </search>',
        f"<thinking> a </thinking>\n<keyframe> {frame} </keyframe>",
        (
            '<thinking> a </thinking>\n<answer> {"bbox_2d": [100, 100, 300, 300], "point_2d": [200,'
            " 200]} </answer>"
        ),
    ]


async def test_a_trajectory_is_returned_with_its_score_tokens_and_images(
    play, tmp_path, tiny_processor
):
    output = await play(turns_for(play.sample))
    (record,) = logged(tmp_path)
    assert output.reward_score == record["score"] > 0
    assert output.num_turns == 6
    assert len(output.multi_modal_data["images"]) == 6 + 2
    assert (
        len(output.response_ids)
        == len(output.response_mask)
        == len(output.response_logprobs)
        == record["num_response_tokens"]
    )
    assert (
        sum(output.response_mask)
        == record["num_sampled_tokens"]
        == sum(p == -0.5 for p in output.response_logprobs)
    )
    assert (output.extra_fields["min_global_steps"], output.extra_fields["max_global_steps"]) == (
        4,
        4,
    )
    assert output.extra_fields["reward_extra_info"]["tool_calls"] == 2.0
    assert (record["global_step"], record["sample_idx"], record["uid"], record["validation"]) == (
        3,
        1,
        "u",
        False,
    )
    assert "tokens" not in record
    assert not (tmp_path / STOP_FILE).exists()


async def test_the_server_is_sent_all_images_each_turn_and_each_is_the_same_object_again(play):
    output = await play(turns_for(play.sample))
    first, second, third = play.server.images
    assert (len(first), len(second), len(third)) == (6, 7, 8)
    assert list(map(id, third[:6])) == list(map(id, first))
    assert id(third[6]) == id(second[6])
    assert all(
        np.array_equal(sent, shown)
        for sent, shown in zip(third, output.multi_modal_data["images"], strict=True)
    )


async def test_what_was_earned_by_term_travels_with_the_tokens(play, tmp_path, monkeypatch):
    asked = []

    async def encode(self, texts):
        asked.append(list(texts))
        return np.array([[1, 0], [0.8, 0.6]], np.float32)

    monkeypatch.setattr(MachineEncoder, "encode", encode)
    output = await play(
        turns_for(play.sample),
        row_changes={"reward_model": {**play.row["reward_model"], "steps": ["an image of b"]}},
    )
    assert asked == [["an image of b", "b"]]
    found = from_extra_fields(output.extra_fields)
    reward = found.reward
    assert (reward.counts, reward.answered, found.group) == ({"tapering": 1}, True, "u")
    assert reward.total == output.reward_score
    assert sum(reward.paid.values()) == pytest.approx(reward.total)
    assert found.tool_calls == {"image_search": 1, "keyframe": 1}
    info = output.extra_fields["reward_extra_info"]
    assert info["guidance"] == logged(tmp_path)[0]["rewards"]["guidance"] == 1
    assert info["outcome"] + info["process"] == pytest.approx(output.reward_score)
    assert info["answered"] == 1
    assert info == found.measures


async def test_evidence_that_a_recipe_wants_travels_with_the_trajectory(play):
    hooks = TrainerHooks(evidence=lambda transcript: {"turns": len(transcript.model_turns)})
    output = await play(turns_for(play.sample), hooks=hooks)
    assert from_extra_fields(output.extra_fields).evidence == {"turns": 3}


async def test_the_loops_of_a_worker_share_a_context_that_ends_with_it(play):
    await play(turns_for(play.sample))
    assert context_of(play.server, lambda: pytest.fail("made twice")) is play.context


async def test_what_users_look_for_in_a_log_is_counted(play):
    wrong = ["<keyframe> 123456 </keyframe>", "   ", *turns_for(play.sample)]
    info = (await play(wrong, limits={"max_faults": 2, "max_tool_calls": 6})).extra_fields[
        "reward_extra_info"
    ]
    counts = {
        name: info[name]
        for name in ("truncated", "tool_errors", "faults", "empty_turns", "cache_hits")
    }
    assert counts == {
        "truncated": 0,
        "tool_errors": 1,
        "faults": 1,
        "empty_turns": 1,
        "cache_hits": 1,
    }
    assert info["tokens_per_turn"] > 1
    assert info["policy_s"] > 0
    assert info["tools_s"] > 0
    assert 0.05 < info["worker_peak_gb"] < 100


async def test_a_turn_that_a_budget_cuts_is_told_and_costs_what_is_asked(play, tmp_path):
    long = ["<thinking> " + "a " * 200]
    changes = {"overlong": {"buffer_share": 1.0, "penalty": 2.0, "mask_truncated": False}}
    output = await play(long, changes=changes)
    info = output.extra_fields["reward_extra_info"]
    assert info["truncated"] == 1
    assert (
        info["overlong"] == logged(tmp_path)[0]["rewards"]["overlong"] == pytest.approx(-96 / 768)
    )
    assert info["process"] == pytest.approx(output.reward_score - info["outcome"])
    paid = from_extra_fields(output.extra_fields).reward.paid
    assert paid["overlong"] == 2 * info["overlong"]
    assert sum(paid.values()) == pytest.approx(output.reward_score)


async def test_a_placeholder_that_was_sampled_ends_the_turn_before_it(
    play, tmp_path, tiny_processor
):
    output = await play(["<thinking> look <|image_pad|><|vision_end|> there"])
    (record,) = logged(tmp_path)
    assert (record["turns"][0]["text"], record["stop_reason"]) == (
        "<thinking> look ",
        "turn_truncated",
    )
    assert (
        tiny_processor.tokenizer.convert_tokens_to_ids("<|image_pad|>") not in output.response_ids
    )
    assert len(output.response_ids) == len(output.response_logprobs) == sum(output.response_mask)


async def test_a_turn_of_placeholders_alone_drops_the_trajectory(play, tmp_path):
    with pytest.raises(InfraError, match="began a turn with a token that stands for an image"):
        await play(["<|image_pad|> there"])
    assert not (tmp_path / STOP_FILE).exists()


async def test_validation_is_not_shaped(play):
    changes = {"overlong": {"buffer_share": 1.0, "penalty": 2.0, "mask_truncated": False}}
    output = await play(turns_for(play.sample), changes=changes, row_changes={VALIDATION_KEY: True})
    assert "overlong" not in output.extra_fields["reward_extra_info"]


async def test_a_term_that_did_not_run_is_none_for_verl_as_well(play):
    output = await play(
        turns_for(play.sample),
        row_changes={"reward_model": {**play.row["reward_model"], "steps": []}},
    )
    assert output.extra_fields["reward_extra_info"]["guidance"] is None


async def test_tokens_are_logged_on_request(play, tmp_path):
    output = await play(turns_for(play.sample), changes={"log_tokens": True})
    tokens = logged(tmp_path)[0]["tokens"]
    assert tokens["response_ids"] == output.response_ids
    assert tokens["response_mask"] == output.response_mask
    assert tokens["prompt_ids"] == output.prompt_ids


async def test_validation_is_logged_as_such(play, tmp_path):
    await play(turns_for(play.sample), row_changes={VALIDATION_KEY: True})
    assert logged(tmp_path)[0]["validation"] is True


async def test_a_failing_service_drops_the_trajectory_and_does_not_stop_the_run(play, tmp_path):
    with pytest.raises(InfraError, match="search server down"):
        await play(turns_for(play.sample), error=InfraError("search server down"))
    (record,) = logged(tmp_path)
    assert (record["stop_reason"], record["score"]) == ("infra", None)
    assert not (tmp_path / STOP_FILE).exists()


async def test_an_episode_that_a_service_ended_with_the_launcher_is_never_handed_in(
    play, monkeypatch
):
    waited = []

    async def wait():
        waited.append("for the end")

    monkeypatch.setattr(agent_loop, "wait_for_the_end", wait)
    for gone in (False, True):
        monkeypatch.setattr(agent_loop, "launcher_has_gone", lambda gone=gone: gone)
        with pytest.raises(InfraError, match="server down"):
            await play(turns_for(play.sample), error=InfraError("server down"))
        assert bool(waited) is gone


async def test_a_service_that_fails_too_often_stops_the_run(play, tmp_path):
    with pytest.raises(UsageError, match="failing service"):
        await play(
            turns_for(play.sample),
            error=InfraError("search server down"),
            changes={"guards": {"min_calls": 1}},
        )
    assert "search server down" in (tmp_path / STOP_FILE).read_text()


async def test_a_bug_in_a_tool_stops_the_run(play, tmp_path):
    with pytest.raises(UsageError, match="ZeroDivisionError"):
        await play(turns_for(play.sample), error=ZeroDivisionError("by zero"))
    assert play.sample.sample_id in (tmp_path / STOP_FILE).read_text()


async def test_data_that_changed_under_the_run_stops_it(play, tmp_path):
    broken = tmp_path / "00001.jpg"
    broken.write_bytes(b"not an image")
    frames = [{"image": str(broken), "resized_width": 64, "resized_height": 64}]
    truth = {"reward_model": {"style": "rule", "ground_truth": "{}", "steps": []}}
    with pytest.raises(UsageError, match=r"00001\.jpg"):
        await play([], row_changes={FRAMES_KEY: frames, **truth})
    assert "00001.jpg" in (tmp_path / STOP_FILE).read_text()


async def test_a_prompt_that_does_not_fit_stops_the_run(play, tmp_path):
    with pytest.raises(UsageError, match=r"longer than data\.max_prompt_length=40"):
        await play([], max_prompt_length=40)
    assert play.sample.sample_id in (tmp_path / STOP_FILE).read_text()


def test_the_settings_of_a_run_are_those_of_its_model(composed, tmp_path):
    config = composed.copy()
    config.seg.run_dir = str(tmp_path)
    assert RolloutContext(config).settings == tiny_settings()


async def test_each_turn_has_a_seed_that_depends_on_seed_step_prompt_and_rollout_alone(play):
    async def seeds(changes=None, row_changes=None, rollout=None):
        await play(
            turns_for(play.sample), changes=changes, row_changes=row_changes, rollout=rollout
        )
        return play.server.seeds

    first = await seeds()
    assert len(set(first)) == 3
    assert await seeds() == first
    others = [{"session_id": 0}, {"global_steps": 4}, {"uid": "3-1"}, {"id": "another"}]
    drawn = [await seeds(row_changes=change) for change in others] + [
        await seeds(changes={"seed": 1})
    ]
    assert not set(first) & {seed for turn in drawn for seed in turn}
    assert len({seed for turn in drawn for seed in turn}) == 15


async def test_prompts_of_validation_have_names_drawn_at_random_which_decide_nothing(play):
    drawn = []
    for uid in ("a", "b"):
        await play(turns_for(play.sample), row_changes={"uid": uid, VALIDATION_KEY: True})
        drawn.append(play.server.seeds)
    assert drawn[0] == drawn[1]


async def test_vllm_is_given_seeds_only_on_request(play):
    await play(turns_for(play.sample), rollout={"name": "vllm"})
    assert play.server.seeds == [None] * 3
    await play(turns_for(play.sample), rollout={"name": "vllm", "full_determinism": True})
    assert None not in play.server.seeds
