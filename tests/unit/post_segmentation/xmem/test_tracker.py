import numpy as np
import pytest

pytest.importorskip("torch")
import torch

from post_segmentation.xmem.memory import MemorySettings
from post_segmentation.xmem.object_group import ObjectGroup
from post_segmentation.xmem.tracker import Fit, Seed, TrackerSettings, XMemTracker
from seg_common.errors import UsageError
from seg_research.core.geometry import ImageSize

SETTINGS = TrackerSettings(
    None,
    memory=MemorySettings(
        every=2, top_k=6, max_frames=3, min_frames=2, num_prototypes=8, max_long_term=20
    ),
)


@pytest.fixture
def tracker(network):
    return XMemTracker(network, SETTINGS)


def box(video, left, top, right, bottom):
    mask = np.zeros((video.size.height_px, video.size.width_px), np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def gathered(parts, num_seeds, num_frames):
    """Masks (S, T, H, W), after checking that every seed was told of every frame once."""
    found = [[None] * num_frames for _ in range(num_seeds)]
    for position, masks, objects in parts:
        assert len(masks) == len(objects)
        for index, mask in zip(objects, masks, strict=True):
            assert found[index][position] is None, (
                f"seed {index} was told twice of frame {position}"
            )
            found[index][position] = mask
    return np.array(found, np.bool_)


def tracked(tracker, video, seeds):
    return gathered(tracker.track(video, seeds), len(seeds), len(video))


def test_every_seed_is_told_of_every_frame_once_and_keeps_its_own_mask(tracker, drawn):
    video = drawn()
    seeds = [Seed(3, box(video, 4, 4, 30, 30)), Seed(7, box(video, 30, 10, 60, 40))]
    masks = tracked(tracker, video, seeds)
    assert masks.shape == (2, 12, 48, 64)
    for index, seed in enumerate(seeds):
        assert np.array_equal(masks[index, seed.position], seed.mask_HW)
    assert masks[0, 4:].any()
    assert masks[1, :7].any()


def test_the_same_seeds_give_the_same_masks(tracker, drawn):
    video = drawn()
    seeds = [Seed(5, box(video, 4, 4, 30, 30)), Seed(5, box(video, 30, 10, 60, 40))]
    assert np.array_equal(tracked(tracker, video, seeds), tracked(tracker, video, seeds))


def test_groups_get_the_masks_they_get_alone(tracker, drawn):
    video = drawn()
    groups = [
        [Seed(0, box(video, 4, 4, 30, 30), 0)],
        [Seed(5, box(video, 8, 8, 40, 30), 1), Seed(5, box(video, 30, 30, 60, 44), 1)],
        [Seed(11, box(video, 20, 8, 50, 40), 2), Seed(4, box(video, 0, 0, 20, 20), 2)],
        [Seed(5, np.zeros((48, 64), np.bool_), 3)],
    ]
    together = tracked(tracker, video, [seed for seeds in groups for seed in seeds])
    start = 0
    for seeds in groups:
        assert np.array_equal(
            together[start : start + len(seeds)], tracked(tracker, drawn(), seeds)
        )
        start += len(seeds)


def test_objects_of_one_group_compete_for_pixels(tracker, drawn):
    video = drawn()
    boxes = box(video, 4, 4, 34, 40), box(video, 30, 10, 60, 44)
    one = tracked(tracker, video, [Seed(0, boxes[0], 0), Seed(0, boxes[1], 0)])
    two = tracked(tracker, video, [Seed(0, boxes[0], 0), Seed(0, boxes[1], 1)])
    assert not (one[0, 1:] & one[1, 1:]).any()
    assert (two[0, 1:] & two[1, 1:]).any()


def test_a_frame_is_read_once_a_sweep_whatever_the_number_of_groups(tracker, drawn):
    video = drawn()
    tracked(
        tracker, video, [Seed(3 + n % 4, box(video, n, n, n + 20, n + 20), n) for n in range(8)]
    )
    # Each sweep runs from the first key frame it meets; those between the outermost key frames are
    # met by both.
    assert video.reads == [1, 1, 1, 2, 2, 2, 2, 1, 1, 1, 1, 1]


def test_empty_seeds_cost_nothing_and_stay_empty(tracker, drawn):
    video = drawn()
    masks = tracked(
        tracker,
        video,
        [Seed(4, np.zeros((48, 64), np.bool_)), Seed(9, np.zeros((48, 64), np.bool_), 1)],
    )
    assert not masks.any()
    assert sum(video.reads) == 0
    assert list(tracker.track(video, [])) == []


def test_an_empty_seed_does_not_change_its_group(tracker, drawn):
    video = drawn()
    seed = Seed(4, box(video, 4, 4, 30, 30))
    with_empty = tracked(tracker, video, [seed, Seed(2, np.zeros((48, 64), np.bool_))])
    assert not with_empty[1].any()
    assert np.array_equal(with_empty[:1], tracked(tracker, video, [seed]))


def test_a_video_of_one_frame_needs_no_network(tracker, drawn):
    video = drawn(num_frames=1)
    mask = box(video, 4, 4, 30, 30)
    assert np.array_equal(tracked(tracker, video, [Seed(0, mask)])[0, 0], mask)
    assert video.reads == [0]


@pytest.mark.parametrize("position", [0, 11])
def test_a_key_frame_at_an_end_is_carried_to_the_other(tracker, drawn, position):
    video = drawn()
    masks = tracked(tracker, video, [Seed(position, box(video, 4, 4, 30, 30))])
    assert np.array_equal(masks[0, position], box(video, 4, 4, 30, 30))
    assert video.reads == [1] * 12


def test_a_joining_object_takes_its_pixels_and_does_not_touch_the_past(tracker, drawn):
    video = drawn()
    first, second = Seed(0, box(video, 4, 4, 34, 40)), Seed(6, box(video, 20, 10, 60, 44))
    both, alone = tracked(tracker, video, [first, second]), tracked(tracker, video, [first])
    assert np.array_equal(both[0, :6], alone[0, :6])
    assert not (both[0, 6] & both[1, 6]).any()
    assert not (both[0, 7:] & both[1, 7:]).any()
    assert not np.array_equal(both[0, 7:], alone[0, 7:])


def test_the_pixels_of_a_joining_object_are_not_shared(network, drawn):
    video, fit = drawn(), Fit.of(ImageSize(64, 48), None)
    group, mask = ObjectGroup(network, SETTINGS.memory), box(video, 20, 10, 60, 44)
    with torch.inference_mode():
        code = network.encode_image(fit.image(video.read(0)))
        group.step(code, (0,), torch.ones(1, 48, 64))
        # Whatever the network says of the first object: it has to be sure of itself where the
        # second one joins, to make a case.
        network_says = torch.full((1, 48, 64), 20.0)
        network.decode = lambda code, readout, sensory, *, update: (network_says, sensory)
        try:
            probs = group.step(code, (1,), fit.masks([mask]))
        finally:
            del network.decode
    assert (probs[2][torch.from_numpy(mask)] > 0.999).all()
    assert (probs[1][torch.from_numpy(~mask)] > 0.9).all()


def test_resizing_leaves_given_masks_as_they_are(network, drawn):
    video, mask = drawn(num_frames=3), np.zeros((48, 64), np.bool_)
    mask[5:33:2, 7:51:3] = True
    masks = tracked(XMemTracker(network, TrackerSettings(24)), video, [Seed(1, mask)])
    assert masks.shape == (1, 3, 48, 64)
    assert np.array_equal(masks[0, 1], mask)


def test_masks_are_resized_by_their_nearest_pixels():
    mask = np.random.default_rng(0).random((64, 96)) < 0.5
    assert np.array_equal(
        Fit.of(ImageSize(96, 64), 32).masks([mask])[0].numpy() > 0, mask[::2, ::2]
    )


def test_a_long_sweep_is_bounded_in_memory(network, drawn):
    video = drawn(num_frames=120, width=32, height=32)
    memory = MemorySettings(
        every=1, top_k=6, max_frames=3, min_frames=2, num_prototypes=3, max_long_term=10
    )
    group, fit = ObjectGroup(network, memory), Fit.of(video.size, None)
    sizes = []
    with torch.inference_mode():
        for position in range(len(video)):
            code = network.encode_image(fit.image(video.read(position)))
            # A second object joins late: its memory is evicted like the first one's.
            joining = {0: 0, 50: 1}.get(position)
            mask = (
                None
                if joining is None
                else fit.masks([box(video, 4 + 10 * joining, 4, 20 + 10 * joining, 30)])
            )
            probs = group.step(code, () if joining is None else (joining,), mask)
            torch.testing.assert_close(probs.sum(0), torch.ones(32, 32))
            sizes.append(
                [
                    (len(m.working) // 4, 0 if m.long_term is None else len(m.long_term))
                    for _, m in group.cohorts
                ]
            )
    assert [max(column) for column in zip(*(size[0] for size in sizes), strict=True)] == [2, 10]
    assert sizes[-1][1][1] == 10
    assert probs.shape == (3, 32, 32)


def test_bf16_stays_near_float32_and_memory_stays_float32(network, drawn):
    video, fit = drawn(num_frames=6), Fit.of(ImageSize(64, 48), None)
    results = []
    for bf16 in (False, True):
        group, probs = ObjectGroup(network, SETTINGS.memory), []
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            for position in range(len(video)):
                code = network.encode_image(fit.image(video.read(position)))
                joining = ((0,), fit.masks([box(video, 4, 4, 40, 40)])) if position == 0 else ()
                probs.append(group.step(code, *joining))
            assert code.key_1CHW.dtype == (torch.bfloat16 if bf16 else torch.float32)
        memory = group.cohorts[0][1]
        assert memory.working.key_NC.dtype == memory.working.value_NOC.dtype == torch.float32
        results.append(torch.stack(probs[1:]))
    assert not torch.equal(*results)
    assert (results[0] - results[1]).abs().mean() < 0.05


def test_the_bf16_switch_reaches_the_network(network, drawn):
    seen = set()
    handle = network.decoder.predict.register_forward_hook(
        lambda module, inputs, output: seen.add(output.dtype)
    )
    try:
        for bf16 in (False, True):
            video = drawn(num_frames=3)
            tracked(
                XMemTracker(network, TrackerSettings(None, bf16)),
                video,
                [Seed(0, box(video, 4, 4, 40, 40))],
            )
    finally:
        handle.remove()
    assert seen == {torch.float32, torch.bfloat16}


def test_frames_of_another_size_are_refused(tracker, drawn):
    video = drawn()
    whole = video.read
    video.read = lambda position: (
        whole(position).resize((40, 40)) if position == 6 else whole(position)
    )
    with pytest.raises(UsageError, match="frame 00006 is 40x40, the first frame is 64x48"):
        tracked(tracker, video, [Seed(3, box(video, 4, 4, 30, 30))])


@pytest.mark.parametrize(
    ("size", "short", "resized", "padding"),
    [
        (ImageSize(854, 480), 480, (854, 480), (5, 0, 5, 0)),
        (ImageSize(1920, 1080), 480, (853, 480), (5, 0, 6, 0)),
        (ImageSize(320, 240), 480, (640, 480), (0, 0, 0, 0)),
        (ImageSize(50, 70), None, (50, 70), (7, 5, 7, 5)),
    ],
)
def test_frames_are_resized_by_the_short_side_and_padded_evenly(size, short, resized, padding):
    fit = Fit.of(size, short)
    assert (tuple(fit.resized), fit.padding_ltrb) == (resized, padding)
    assert (
        (resized[0] + padding[0] + padding[2]) % 16
        == (resized[1] + padding[1] + padding[3]) % 16
        == 0
    )


def test_images_are_normalised_and_padded_with_the_mean(drawn):
    video = drawn(width=50, height=40)
    fit = Fit.of(video.size, None)
    image = fit.image(video.read(0))
    assert tuple(image.shape) == (1, 3, 48, 64)
    pixels = np.asarray(video.read(0), np.float32) / 255
    expected = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(
        image[0, :, 4:44, 7:57].permute(1, 2, 0).numpy(), expected, atol=1e-5
    )
    assert float(image[..., :4, :].abs().sum() + image[..., :7].abs().sum()) == 0


def test_masks_come_back_where_they_were(drawn):
    video = drawn(width=50, height=40)
    fit = Fit.of(video.size, None)
    masks = [box(video, 3, 5, 20, 30), box(video, 30, 10, 45, 40)]
    inner = fit.masks(masks)
    background = 1 - inner.sum(0, keepdim=True)
    assert np.array_equal(fit.restored(torch.cat([background, inner])), np.stack(masks))


def test_a_smaller_mask_lies_on_a_larger_one(drawn):
    video = drawn(width=48, height=48)
    whole, part = box(video, 0, 0, 48, 48), box(video, 10, 10, 20, 20)
    masks = Fit.of(video.size, None).masks([part, whole]) > 0
    assert np.array_equal(masks[0].numpy(), part)
    assert np.array_equal(masks[1].numpy(), whole & ~part)


def test_a_one_pixel_mask_survives_resizing():
    mask = np.zeros((1080, 1920), np.bool_)
    mask[501, 701] = True
    fit = Fit.of(ImageSize(1920, 1080), 120)
    assert float(fit.masks([mask]).sum()) >= 1
