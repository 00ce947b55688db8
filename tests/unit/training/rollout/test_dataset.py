"""Rows as verl gets them: paths and no pixels, told apart into training and validation, none of
them dropped.
"""

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")

from omegaconf import OmegaConf
from PIL import Image

from seg_research.data.rows import read_samples, sample_of
from seg_research.training.rollout.dataset import FRAMES_KEY, SegDataset
from seg_research.training.run_contract import VALIDATION_KEY


@pytest.fixture(scope="module")
def datasets(mini, tiny_processor):
    files = {"train_files": str(mini.parquet("train")), "val_files": [str(mini.parquet("val"))]}
    config = OmegaConf.create(
        {**files, "max_prompt_length": 8, "filter_overlong_prompts": True, "return_raw_chat": True}
    )
    return {
        key: SegDataset(config[key], tiny_processor.tokenizer, config, tiny_processor)
        for key in files
    }


def leaves(value):
    if isinstance(value, dict):
        for inner in value.values():
            yield from leaves(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from leaves(inner)
    else:
        yield value


def test_every_row_is_there_whatever_its_length(datasets, mini):
    assert len(datasets["train_files"]) == 12
    assert len(datasets["val_files"]) == 4


def test_a_row_gives_the_sample_back_and_holds_no_pixels(datasets, mini):
    samples = read_samples(mini.parquet("train"))
    for number, sample in enumerate(samples):
        row = datasets["train_files"][number]
        assert sample_of({**row, "images": row[FRAMES_KEY]}, "row") == sample
        assert not any(isinstance(leaf, Image.Image | bytes) for leaf in leaves(row))
        assert "images" not in row


def test_a_row_names_its_agent_loop_and_its_place(datasets):
    row = datasets["train_files"][3]
    assert (row["agent_name"], row["index"]) == ("seg_research", 3)
    assert row["raw_prompt"] == [{"role": "user", "content": row["question"]}]


def test_validation_rows_say_so(datasets):
    assert not any(row[VALIDATION_KEY] for row in datasets["train_files"])
    assert all(row[VALIDATION_KEY] for row in datasets["val_files"])
