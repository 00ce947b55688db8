import pytest

pytest.importorskip("torch")
import torch

from post_segmentation.xmem.network import aggregate


@pytest.fixture(scope="module")
def code(network):
    with torch.inference_mode():
        return network.encode_image(
            torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(1))
        )


def test_an_image_is_encoded_at_three_strides(code):
    assert [tuple(m.shape[1:]) for m in (code.skip4_1CHW, code.skip8_1CHW, code.stride16_1CHW)] == [
        (32, 8, 12),
        (64, 4, 6),
        (128, 2, 3),
    ]
    assert tuple(code.key_1CHW.shape) == tuple(code.selection_1CHW.shape) == (1, 8, 2, 3)
    assert tuple(code.shrinkage_11HW.shape) == (1, 1, 2, 3)
    assert (code.shrinkage_11HW >= 1).all()
    assert ((code.selection_1CHW > 0) & (code.selection_1CHW < 1)).all()


@pytest.mark.parametrize("num_objects", [1, 3])
def test_masks_are_encoded_and_decoded_per_object(network, code, num_objects):
    with torch.inference_mode():
        sensory = torch.zeros(num_objects, 8, 2, 3)
        value, deep = network.encode_masks(code, torch.rand(num_objects, 32, 48), sensory)
        logits, updated = network.decode(code, value, deep, update=True)
        _, kept = network.decode(code, value, deep, update=False)
    assert tuple(value.shape) == (num_objects, 32, 2, 3)
    assert tuple(logits.shape) == (num_objects, 32, 48)
    assert deep.shape == updated.shape == sensory.shape
    assert torch.equal(kept, deep)
    assert not torch.equal(updated, deep)


def test_the_order_of_objects_does_not_matter(network, code):
    masks, sensory = torch.rand(3, 32, 48), torch.randn(3, 8, 2, 3)
    order = [2, 0, 1]
    with torch.inference_mode():
        straight, shuffled = (
            network.encode_masks(code, masks, sensory)[0],
            network.encode_masks(code, masks[order], sensory[order])[0],
        )
    torch.testing.assert_close(straight[order], shuffled, atol=1e-4, rtol=1e-4)


def test_an_object_sees_the_masks_of_the_others(network, code):
    masks, sensory = torch.rand(2, 32, 48), torch.zeros(2, 8, 2, 3)
    with torch.inference_mode():
        together, alone = (
            network.encode_masks(code, masks, sensory)[0][0],
            network.encode_masks(code, masks[:1], sensory[:1])[0][0],
        )
    assert not torch.allclose(together, alone, atol=1e-3)


def test_aggregation_is_odds_over_the_sum_of_odds():
    probs = [0.6, 0.3]
    odds = [p / (1 - p) for p in (0.4 * 0.7, *probs)]
    expected = torch.tensor([o / sum(odds) for o in odds])
    torch.testing.assert_close(aggregate(torch.tensor(probs)[:, None, None])[:, 0, 0], expected)


def test_aggregation_of_certainty_is_finite():
    found = aggregate(torch.tensor([[[0.0, 1.0, 1.0]], [[0.0, 0.0, 1.0]]]))
    torch.testing.assert_close(found.sum(0), torch.ones(1, 3))
    assert found.argmax(0)[0, :2].tolist() == [0, 1]
    torch.testing.assert_close(found[1:, 0, 2], torch.tensor([0.5, 0.5]))
