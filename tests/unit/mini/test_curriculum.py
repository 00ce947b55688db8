"""Examples lower the loss of what they pretrain, and a killed course goes on to the same
weights.
"""

from itertools import islice

import pytest

pytest.importorskip("torch", reason="training needs the train extra")
pytest.importorskip("transformers", reason="training needs the train extra")

import torch

from seg_research.mini.curriculum import (
    ExampleKind,
    Phase,
    PretrainingSettings,
    positions,
    pretrain,
)
from seg_research.mini.figures import Shape
from seg_research.mini.grounding_pretraining import pretrain_grounding
from seg_research.mini.induction_init import write_induction_circuit
from seg_research.mini.pretraining_data.clips import draw_clip
from seg_research.mini.pretraining_data.vocabulary import corpus
from seg_research.mini.sprites import Colour
from seg_research.mini.tiny_model import TinySize, build_model, build_tokenizer

SMALL = TinySize(
    vocab=900,
    hidden=144,
    layers=3,
    heads=4,
    kv_heads=2,
    head_dim=48,
    feed_forward=64,
    vision_hidden=48,
    vision_layers=1,
    rope_theta=1e6,
)
COURSE = (Phase(1, {ExampleKind.PASSAGE_QA: 1.0}), Phase(None, {ExampleKind.EPISODES: 1.0}))


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(islice(corpus(0), 700), SMALL.vocab)


@pytest.fixture(scope="module")
def clips():
    return [draw_clip(0)]


def fresh(tokenizer):
    model = build_model(tokenizer, SMALL, seed=0)
    write_induction_circuit(model, tokenizer, seed=0)
    return model


def settings(steps):
    return PretrainingSettings(
        steps=steps,
        curriculum=COURSE,
        save_every=2,
        decay_steps=4,
        warmup_steps=1,
        grounding_images=2,
        compiled=False,
    )


def test_every_look_is_two_tokens_and_every_frame_number_one(tokenizer):
    assert all(len(tokenizer.encode(f" {word}")) == 1 for kind in (Colour, Shape) for word in kind)
    assert all(len(tokenizer.encode(str(number))) == 1 for number in range(106))


def test_grounding_is_learnt(tokenizer):
    told = []
    model = fresh(tokenizer)
    pretrain_grounding(
        model,
        tokenizer,
        steps=12,
        seed=0,
        progress=lambda step, f: told.append(f["loss"]),
        images_per_step=3,
        compiled=False,
    )
    assert sum(told[-3:]) < 0.8 * sum(told[:3])


def test_a_killed_course_goes_on_to_the_same_weights(tokenizer, clips, tmp_path):
    whole, halved = fresh(tokenizer), fresh(tokenizer)
    losses = []
    pretrain(
        whole,
        tokenizer,
        clips,
        settings(3),
        tmp_path / "whole.pt",
        lambda step, loss: losses.append(dict(loss)),
    )
    assert [set(loss) - {"grounding"} for loss in losses] == [
        {"passage_qa"},
        {"passage_qa", "episodes"},
        {"passage_qa", "episodes"},
    ]

    class Killed(Exception):
        pass

    def kill(step, loss):
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        pretrain(halved, tokenizer, clips, settings(3), tmp_path / "halved.pt", kill)
    again = fresh(tokenizer)
    pretrain(again, tokenizer, clips, settings(3), tmp_path / "halved.pt", lambda step, loss: None)
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True)
    )


def test_positions_are_those_of_qwen():
    image = 9
    assert positions([1, image, image, image, image, 2], image, [2]).tolist() == [
        [0, 1, 1, 1, 1, 3],
        [0, 1, 1, 2, 2, 3],
        [0, 1, 2, 1, 2, 3],
    ]
