"""The tracking loop against transformers' own session: the same numbers, whatever else is followed
beside.
"""

import functools

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch comes with the train extra")
pytest.importorskip("transformers", reason="transformers comes with the train extra")

import torch
from transformers.models.edgetam_video.modeling_edgetam_video import EdgeTamVideoInferenceSession
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession
from transformers.models.sam3_tracker_video.modeling_sam3_tracker_video import (
    Sam3TrackerVideoInferenceSession,
)

from post_segmentation.sam2_tracker import Sam2Tracker
from seg_research.testing.sam2 import SIDE_PX, tiny_edgetam, tiny_sam2, tiny_sam3_tracker

NUM_FRAMES = 14
CORNERS = (2, 3)
PROMPTS = [
    (5, [[8, 8], [40, 50], [20, 30], [60, 5]], [*CORNERS, 1, 0]),
    (2, [[30, 22]], [1]),
    (12, [[1, 1], [50, 60]], list(CORNERS)),
    (5, [[3, 4], [20, 18]], [1, 1]),
]
FAMILY = {
    "sam2": (tiny_sam2, Sam2VideoInferenceSession),
    "edgetam": (tiny_edgetam, EdgeTamVideoInferenceSession),
    "sam3": (tiny_sam3_tracker, Sam3TrackerVideoInferenceSession),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@functools.cache
def model_of(name):
    return FAMILY[name][0]()


@functools.cache
def pixels():
    return torch.randn(NUM_FRAMES, 3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(3))


def transformers_logits(model, session_class, position, points, labels):
    """Mask logits of every frame by the session of transformers: forward, then backward, one object
    alone.
    """
    session = session_class(
        video=pixels(), video_height=SIDE_PX, video_width=SIDE_PX, dtype=torch.float32
    )
    index = session.obj_id_to_idx(1)
    if labels is None:
        session.add_mask_inputs(index, position, points)
    else:
        inputs = {
            "point_coords": torch.tensor(points, dtype=torch.float32)[None, None],
            "point_labels": torch.tensor(labels)[None, None],
        }
        session.add_point_inputs(index, position, inputs)
    session.obj_with_new_inputs = [1]
    model(session, frame_idx=position)
    found = {}
    for reverse in (False, True):
        for output in model.propagate_in_video_iterator(
            session, start_frame_idx=position, reverse=reverse
        ):
            found[output.frame_idx] = output.pred_masks[0, 0]
    return torch.stack([found[p] for p in range(NUM_FRAMES)])


def our_logits(model, prompts, objects_per_batch=1):
    """The same for many objects in one sweep each way."""
    tracker = Sam2Tracker(model, objects_per_batch)
    tracks, found = {}, {}
    for step, positions in ((1, range(NUM_FRAMES)), (-1, range(NUM_FRAMES - 1, -1, -1))):
        for position in positions:
            vision = tracker.encode(pixels()[position : position + 1])
            followed = {
                number: track
                for number, track in tracks.items()
                if (position - track.key) * step > 0
            }
            if followed:
                logits = tracker.follow(vision, position, list(followed.values()), step, NUM_FRAMES)
                found |= {
                    (number, position): row for number, row in zip(followed, logits, strict=True)
                }
            for number, (key, points, labels) in enumerate(prompts):
                if step == 1 and key == position and labels is None:
                    tracks[number], (found[number, position],) = tracker.begin_with_mask(
                        vision, position, points
                    )
                elif step == 1 and key == position:
                    described = torch.tensor(points, dtype=torch.float32), torch.tensor(labels)
                    tracks[number], (found[number, position],) = tracker.begin(
                        vision, position, *described
                    )
    return torch.stack(
        [torch.stack([found[n, p] for p in range(NUM_FRAMES)]) for n in range(len(prompts))]
    )


@pytest.mark.parametrize("name", FAMILY)
def test_every_object_gets_the_bits_that_transformers_gives_it_alone(name):
    model = model_of(name)
    ours = our_logits(model, PROMPTS)
    assert 0.02 < (ours > 0).float().mean() < 0.98, (
        "a test on masks that are all the same would show nothing"
    )
    for number, prompt in enumerate(PROMPTS):
        theirs = transformers_logits(model, FAMILY[name][1], *prompt)
        assert torch.equal(ours[number], theirs), (
            f"object {number}: off by {(ours[number] - theirs).abs().max()}"
        )


def drawn_mask(top, left, bottom, right):
    mask = torch.zeros(1, 1, SIDE_PX, SIDE_PX)
    mask[..., top:bottom, left:right] = 1
    return mask


@pytest.mark.parametrize("name", FAMILY)
def test_an_object_given_as_a_mask_gets_the_bits_that_transformers_gives_it_alone(name):
    """Beside another one that was given by points."""
    model = model_of(name)
    prompts = [(5, drawn_mask(10, 12, 40, 50), None), PROMPTS[0], (2, drawn_mask(0, 0, 9, 9), None)]
    ours = our_logits(model, prompts)
    for number, prompt in enumerate(prompts):
        theirs = transformers_logits(model, FAMILY[name][1], *prompt)
        assert torch.equal(ours[number], theirs), (
            f"object {number}: off by {(ours[number] - theirs).abs().max()}"
        )


def test_an_object_that_comes_and_goes_is_no_different():
    model, scores = tiny_sam2(), []
    hook = model.mask_decoder.register_forward_hook(
        lambda _module, _inputs, found: scores.append(found[3].flatten())
    )
    our_logits(model, PROMPTS)
    hook.remove()
    model.mask_decoder.pred_obj_score_head.proj_out.bias.data -= torch.cat(scores).median()
    ours = our_logits(model, PROMPTS)
    gone = (ours == -1024).flatten(2).all(dim=2)
    assert 0 < gone.sum() < gone.numel(), "on some frames there, on others not"
    for number, prompt in enumerate(PROMPTS):
        assert torch.equal(
            ours[number], transformers_logits(model, Sam2VideoInferenceSession, *prompt)
        )


@pytest.mark.parametrize("name", FAMILY)
def test_in_a_batch_only_the_last_bits_differ(name):
    """Matrix products of another size add in another order; nothing else may change."""
    alone, together = (
        our_logits(model_of(name), PROMPTS),
        our_logits(model_of(name), PROMPTS, objects_per_batch=16),
    )
    assert torch.allclose(alone, together, atol=2e-5)
    assert ((alone > 0) != (together > 0)).float().mean() < 1e-3


def test_what_is_remembered_does_not_grow_with_the_video():
    tracker = Sam2Tracker(model_of("sam2"), objects_per_batch=4)
    vision = tracker.encode(pixels()[:1])
    track, _ = tracker.begin(vision, 0, torch.tensor([[9.0, 9.0]]), torch.tensor([1]))
    sizes = []
    for position in range(1, 40):
        tracker.follow(vision, position, [track], 1, 20_000)
        sizes.append((len(track.memories), len(track.pointers)))
    assert set(sizes[20:]) == {(5, 9)}, (
        "three and five frames beside the key frame for the way back, one less behind the next "
        "frame"
    )
    assert all(
        memory.untyped_storage().nbytes() == memory.nbytes for memory in track.memories.values()
    )


def test_the_memory_matters_in_this_test():
    """Were memory and pointers not used, the comparisons above would hold all the same for a single
    frame's segmenter.
    """
    model = model_of("sam2")
    both = our_logits(model, PROMPTS[:1])
    first = our_logits(model, [(PROMPTS[0][0], [[2, 60]], [1])])
    away = np.abs(np.arange(NUM_FRAMES) - PROMPTS[0][0]) > 3
    assert not torch.equal(both[0][away], first[0][away])


@pytest.mark.parametrize("name", FAMILY)
def test_half_precision_runs_through_as_on_a_gpu(name, monkeypatch):
    """The CPU's autocast mixes the same types at the same places; the masks of a random network are
    those of fp32 on most pixels.
    """
    exact = our_logits(model_of(name), PROMPTS, objects_per_batch=16)
    monkeypatch.setattr(
        Sam2Tracker, "_precision", lambda _: torch.autocast("cpu", dtype=torch.bfloat16)
    )
    rough = our_logits(model_of(name), PROMPTS, objects_per_batch=16)
    assert not torch.equal(exact.float(), rough.float())
    assert ((exact > 0) == (rough > 0)).float().mean() > 0.9
