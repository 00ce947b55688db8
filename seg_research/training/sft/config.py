"""Compose the configuration of a cold start, check it before anything starts, and say where each
value came from.

Models and hardware are described once, in the groups that `train` has: `configs/sft.yaml` reads
what it needs from there by reference, and what is left of verl's other tree after that is taken
away.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir, initialize_config_module
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seg_common.errors import UsageError
from seg_research.recipes.registry import build_recipe
from seg_research.training.launch import config as shared
from seg_research.training.launch import recipe_node
from seg_research.training.launch.config import as_list, episode_settings, leaves, plain
from seg_research.training.launch.origins import chosen_options, decided, origin
from seg_research.training.sft.episodes import SftSettings

DEFAULT_RUN_DIR = "outputs/sft"
AFTER_EACH_EPOCH = "after_each_epoch"

_READ = ("data", "model", "engine", "optim", "checkpoint", "profiler", "trainer")
"""The parts of the tree that verl's SFT trainer reads."""
_OURS = ("run_dir", "seed", "recipe_label", "threads", "gpu_gb", "episode", "sft")
"""The parts of `seg` that a cold start reads."""
_SOURCE = "actor_rollout_ref"
_SETTINGS = "settings of the recipe"
_REFERENCE = re.compile(rf"\$\{{(?:oc\.select:)?({_SOURCE}\.[\w.]+|data\.dataloader_num_workers)")


def compose_sft(overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration of a run.

    Raises:
        UsageError: an override names something that does not exist or that nothing reads, or a
            required value is missing.
    """
    given = list(overrides)
    if not any(o.lstrip("+").startswith("seg.run_dir=") for o in given):
        given.append(f"seg.run_dir={DEFAULT_RUN_DIR}")
    node = recipe_node.generate(given)
    try:
        whole = _compose(given)
        recipe_node.drop_foreign(whole, node, shared.named_keys(overrides))
        config = _reduced(whole)
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(f"configuration: {shared.one_line(error)}") from None
    _check_read(overrides, config, node)
    config.seg.run_dir = str(Path(config.seg.run_dir).resolve())
    missing = [
        f"{key}=…"
        for key in ("data.train_files", "model.path")
        if OmegaConf.select(config, key) is None
    ]
    if missing:
        raise UsageError(
            f"configuration: please set {' '.join(missing)}; see seg-research sft --help"
        )
    return config


def _compose(given: Sequence[str]) -> DictConfig:
    # verl's tree has a group `model` as well; Hydra tells the two apart by where they land.
    renamed = [
        f"model@_global_={o.partition('=')[2]}" if o.startswith("model=") else o for o in given
    ]
    with initialize_config_module("seg_research.configs", version_base="1.3"):
        return compose(
            "sft",
            [f"hydra.searchpath=['file://{shared.verl_tree()}']", "seg.agent_loops=null", *renamed],
        )


def _reduced(whole: DictConfig) -> DictConfig:
    """Keep what is read; put in values what refers to the rest."""
    raw: dict[str, Any] = OmegaConf.to_container(whole, resolve=False)  # type: ignore[assignment]
    for section in _READ:
        for key, value in leaves(raw[section], section).items():
            if isinstance(value, str) and _REFERENCE.search(value):
                found = OmegaConf.select(whole, key)
                _put(
                    raw, key, OmegaConf.to_container(found) if OmegaConf.is_config(found) else found
                )
    # A cold start has no search of its own; what an episode says of it comes along as it is.
    raw["seg"]["episode"]["search"] = OmegaConf.to_container(whole.seg.episode.search, resolve=True)
    raw["data"].pop("dataloader_num_workers", None)
    raw["trainer"].pop("v1", None)
    reduced = OmegaConf.create(
        {
            **{section: raw[section] for section in _READ},
            "seg": {key: raw["seg"][key] for key in _OURS},
        }
    )
    OmegaConf.set_struct(reduced, True)
    return reduced


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        tree = tree[part]
    tree[last] = value


def _references() -> dict[str, str]:
    """Give for each key of ours that refers to a part of `train`'s tree that part."""
    found = {
        key: _REFERENCE.search(str(value))
        for key, value in leaves(shared.read_yaml("sft.yaml")).items()
    }
    return {key: match[1] for key, match in found.items() if match}


def _check_read(overrides: Sequence[str], config: DictConfig, node: dict[str, Any]) -> None:
    """Refuse keys that only `train` reads: Hydra knows them, and nothing would come of them."""
    known: set[str] = set()
    for key in leaves(OmegaConf.to_container(config)):
        parts = key.split(".")
        known |= {".".join(parts[:depth]) for depth in range(1, len(parts) + 1)}
    known |= set(_references().values()) | {"model", "hardware", "recipe", "logger"}
    open_places = (
        "model.override_config.",
        f"{_SOURCE}.model.override_config.",
        "optim.override_optimizer_config.",
    )
    for key in sorted(shared.named_keys(overrides)):
        if key not in known and not key.startswith(open_places):
            raise UsageError(
                f"configuration: nothing in a cold start reads '{key}'; see "
                "seg_research/configs/sft.yaml for what there is"
            )
    for key in leaves({"seg": OmegaConf.to_container(config.seg, resolve=False)}):
        if key not in leaves(
            {"seg": {**shared.read_yaml("seg.yaml"), **shared.read_yaml("sft.yaml")["seg"]}}
        ) | leaves({"seg": node}):
            raise UsageError(
                f"configuration: nothing reads '{key}'; see seg_research/configs/sft.yaml for what "
                "there is"
            )


def sft_settings(config: DictConfig) -> SftSettings:
    """Read and validate `seg.sft`.

    Raises:
        UsageError: a value is of another type.
    """
    values = plain(config.seg.sft)
    wanted = {
        "min_score": (int, float, type(None)),
        "answered_only": bool,
        "image_cache_gb": (int, float),
    }
    for key, kinds in wanted.items():
        if not isinstance(values[key], kinds) or (
            key != "answered_only" and isinstance(values[key], bool)
        ):
            raise UsageError(
                f"configuration: seg.sft.{key}={values[key]}: expected "
                f"{'true or false' if kinds is bool else 'a number'}"
            )
    return SftSettings(**values)


def check_sft_against_verl(config: DictConfig) -> None:
    """Cross-check our settings with keys that verl would ignore or that would stop it in the
    middle.

    Raises:
        UsageError: with the keys that contradict each other.
    """
    build_recipe(episode_settings(config))
    sft_settings(config)
    data, trainer = config.data, config.trainer
    if trainer.nnodes != 1:
        raise UsageError(
            f"trainer.nnodes={trainer.nnodes}: a cold start runs on one node; choose "
            "hardware=8x80g or another one with one"
        )
    world = trainer.n_gpus_per_node
    if data.train_batch_size % world:
        raise UsageError(
            f"data.train_batch_size={data.train_batch_size} does not divide among {world} device(s)"
        )
    micro = data.micro_batch_size_per_gpu
    if not data.use_dynamic_bsz and (data.train_batch_size // world) % micro:
        raise UsageError(
            f"data.micro_batch_size_per_gpu={micro} does not divide "
            f"data.train_batch_size={data.train_batch_size} on {world} device(s)"
        )
    if (
        data.use_dynamic_bsz
        and data.max_token_len_per_gpu * config.engine.ulysses_sequence_parallel_size
        < data.max_length
    ):
        raise UsageError(
            f"data.max_token_len_per_gpu={data.max_token_len_per_gpu} is less than "
            f"data.max_length={data.max_length}; "
            "raise it, or lower data.max_length"
        )
    if data.pad_mode != "no_padding":
        raise UsageError(f"data.pad_mode={data.pad_mode}: verl's engine takes no_padding only")
    for key in ("save_freq", "test_freq"):
        value = trainer[key]
        if value != AFTER_EACH_EPOCH and not (isinstance(value, int) and value != 0):
            raise UsageError(
                f"trainer.{key}={value}: expected a number of steps, {AFTER_EACH_EPOCH}, or -1 for "
                "the end only"
            )
    if trainer.test_freq != -1 and not data.val_files:
        raise UsageError(f"trainer.test_freq={trainer.test_freq} needs data.val_files")
    if config.model.lora_rank <= 0 and "hf_model" not in config.checkpoint.save_contents:
        raise UsageError(
            "checkpoint.save_contents has no hf_model, so no policy would be left behind; add it"
        )
    if trainer.device == "cpu" and config.engine.strategy != "fsdp2":
        raise UsageError(
            f"hardware=cpu needs engine.strategy=fsdp2 (found {config.engine.strategy})"
        )
    if trainer.resume_mode != "auto" or trainer.resume_from_path:
        raise UsageError(
            "trainer.resume_mode: a run goes on in its own seg.run_dir; to start from another "
            "checkpoint set model.path"
        )


def check_sizes(config: DictConfig, num_train: int, num_val: int | None) -> int:
    """See that the episodes fill a batch and that the wanted steps will be reached; return the
    number of steps.

    Raises:
        UsageError: with what to change.
    """
    batch, epochs, wanted = (
        config.data.train_batch_size,
        config.trainer.total_epochs,
        config.trainer.total_training_steps,
    )
    steps_per_epoch = num_train // batch
    if not steps_per_epoch:
        raise UsageError(
            f"data.train_batch_size={batch}, but there are only {num_train} episodes to learn "
            "from; lower it"
        )
    if num_val is not None and num_val < batch:
        raise UsageError(
            f"data.val_files: {num_val} episodes do not fill a batch of "
            f"data.train_batch_size={batch}; verl would skip them"
        )
    if wanted is not None and wanted > steps_per_epoch * epochs:
        raise UsageError(
            f"trainer.total_training_steps={wanted}, but trainer.total_epochs={epochs} of "
            f"{steps_per_epoch} steps each end before; "
            f"set trainer.total_epochs={-(-wanted // steps_per_epoch)}"
        )
    return wanted or steps_per_epoch * epochs


def check_model(config: DictConfig) -> bool:
    """See that a model folder is one; return whether the model is on this machine (and not a name
    of a hub).

    Raises:
        UsageError: it is not.
    """
    path = Path(config.model.path)
    if not (path.is_absolute() or path.exists()):
        return False
    if not (path / "config.json").is_file():
        raise UsageError(
            f"model.path={path}: no config.json there; make the tiny model with: seg-research "
            "model --help"
        )
    return True


def episode_files(config: DictConfig, key: str) -> list[Path]:
    """Return the files of `data.train_files` or `data.val_files`; none where it is null.

    Raises:
        UsageError: one does not exist, or stands in both.
    """
    files = [Path(file) for file in as_list(config.data[key])] if config.data[key] else []
    for file in files:
        if not file.is_file():
            raise UsageError(
                f"data.{key}: {file}: no such file; write episodes with: seg-research predict"
            )
    if key == "val_files" and set(files) & set(episode_files(config, "train_files")):
        raise UsageError(
            "data.val_files names a file of data.train_files: validation would measure memory"
        )
    return files


def sft_origins(config: DictConfig, overrides: Sequence[str]) -> list[tuple[str, str, str]]:
    """List every value that is not verl's default as (key, value, origin), sorted by key."""
    with initialize_config_dir(str(shared.verl_tree()), version_base="1.3"):
        stock = leaves(OmegaConf.to_container(compose("sft_trainer_engine"), resolve=False))
    named, files, references = shared.named_keys(overrides), _our_files(overrides), _references()
    rows: list[tuple[str, str, str]] = []
    for key, value in sorted(leaves(OmegaConf.to_container(config, resolve=False)).items()):
        if key in stock and stock[key] == value:
            continue
        # The value stands where our file refers to, unless somebody set it directly.
        near, far = (
            origin(key, named, files),
            origin(_source_of(key, references), named, files),
        )
        shown = OmegaConf.select(config, key, throw_on_missing=False)
        rows.append(
            (
                key,
                str(shown),
                near if near not in ("launcher", "sft.yaml") or far == "launcher" else far,
            )
        )
    return rows


def _source_of(key: str, references: dict[str, str]) -> str:
    """Follow a key, or the part of the tree it stands in, to what it refers to."""
    for own, source in references.items():
        if key == own or key.startswith(f"{own}."):
            return source + key[len(own) :]
    return key


def _our_files(overrides: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """Give the leaves of each YAML file that takes part, in the order of composition."""
    whole = shared.read_yaml("sft.yaml")
    chosen = chosen_options(whole.pop("defaults"), overrides)
    names = [
        _SETTINGS,
        "seg.yaml",
        *(f"{group}/{option}.yaml" for group, option in chosen.items()),
        "sft.yaml",
    ]
    own = [f"sft/{group}/{chosen[group]}.yaml" for group in ("model", "hardware")]
    names += [
        name for name in own if resources.files("seg_research.configs").joinpath(name).is_file()
    ]
    trees = {
        _SETTINGS: {"seg": recipe_node.generate(overrides)},
        "seg.yaml": {"seg": shared.read_yaml("seg.yaml")},
        "sft.yaml": whole,
    }
    parts = [(name, trees.get(name) or shared.read_yaml(name)) for name in names]
    return [(name, decided(values)) for name, values in parts]
