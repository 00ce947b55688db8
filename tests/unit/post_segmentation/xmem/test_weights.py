from pathlib import Path

import pytest

pytest.importorskip("torch")
import torch

from post_segmentation.xmem.network import Widths, XMem
from post_segmentation.xmem.weights import load_xmem, our_name
from seg_common.errors import UsageError

KEYS = Path(__file__).parents[3] / "golden" / "xmem_keys.txt"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def public_shapes():
    """Name -> shape of every entry of the published XMem.pth."""
    rows = [line.split(" ") for line in KEYS.read_text().splitlines()]
    return {name: tuple(int(side) for side in shape.split(",") if side) for name, shape in rows}


def test_every_published_parameter_has_one_place_of_its_shape(public_shapes):
    with torch.device("meta"):
        ours = {
            name: tuple(parameter.shape) for name, parameter in XMem(Widths()).state_dict().items()
        }
    translated = [our_name(name) for name in public_shapes]
    assert len(set(translated)) == len(translated) == 412
    assert {our_name(name): shape for name, shape in public_shapes.items()} == ours


def test_number_of_parameters_is_the_published_one():
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in XMem(Widths()).parameters()) == 62_185_224


def test_widths_are_read_off_the_checkpoint(network):
    assert network.widths == Widths(key=8, value=32, sensory=8, stem=8)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_values_reach_the_parameter_that_the_table_names(random_checkpoint, network):
    public, ours = random_checkpoint(), network.state_dict()
    assert all(torch.equal(ours[our_name(name)], value) for name, value in public.items())


def test_the_variant_without_sensory_memory_loads(random_checkpoint, tmp_path):
    torch.save(random_checkpoint(sensory=False), tmp_path / "x.pth")
    assert load_xmem(tmp_path / "x.pth", CPU).widths.sensory == 0


def test_half_precision_and_absent_batch_counters_load(random_checkpoint, tmp_path):
    public = {
        name: value.half()
        for name, value in random_checkpoint().items()
        if not name.endswith("num_batches_tracked")
    }
    torch.save(public, tmp_path / "x.pth")
    assert {p.dtype for p in load_xmem(tmp_path / "x.pth", CPU).parameters()} == {torch.float32}


def test_a_single_object_checkpoint_does_not_see_other_masks(random_checkpoint, tmp_path):
    public = random_checkpoint()
    public["value_encoder.conv1.weight"] = public["value_encoder.conv1.weight"][:, :4]
    torch.save(public, tmp_path / "x.pth")
    network = load_xmem(tmp_path / "x.pth", CPU)
    with torch.inference_mode():
        code, sensory = network.encode_image(torch.randn(1, 3, 32, 48)), torch.zeros(2, 8, 2, 3)
        probs = torch.rand(2, 32, 48)
        other = torch.stack([probs[0], 1 - probs[1]])
        assert torch.equal(
            network.encode_masks(code, probs, sensory)[0][0],
            network.encode_masks(code, other, sensory)[0][0],
        )


def change(name, value):
    def apply(public):
        if value is None:
            del public[name]
        else:
            public[name] = value

    return apply


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (change("decoder.pred.bias", None), "lacks decoder.predict.bias"),
        (change("extra.weight", torch.zeros(1)), "unknown extra.weight"),
        (
            change("decoder.pred.bias", torch.zeros(2)),
            r"decoder.predict.bias is \(2,\), expected \(1,\)",
        ),
        (change("key_proj.key_proj.weight", None), "not a checkpoint of XMem: it has no key_proj"),
        (change("key_proj.key_proj.weight", torch.tensor(1.0)), "not a checkpoint of XMem"),
        (change("optimizer", {"step": 1}), "expected a dictionary of parameters"),
    ],
)
def test_what_does_not_fit_is_named(spoil, said, random_checkpoint, tmp_path):
    public = random_checkpoint()
    spoil(public)
    torch.save(public, tmp_path / "x.pth")
    with pytest.raises(UsageError, match=said):
        load_xmem(tmp_path / "x.pth", CPU)


def test_many_problems_are_counted_not_listed(random_checkpoint, tmp_path):
    public = {name: value for name, value in random_checkpoint().items() if ".layer2." not in name}
    torch.save(public, tmp_path / "x.pth")
    with pytest.raises(UsageError, match=r"lacks key_encoder\.stage8.* and \d+ more$"):
        load_xmem(tmp_path / "x.pth", CPU)


def test_a_file_that_is_no_checkpoint_is_refused(random_checkpoint, tmp_path):
    whole = tmp_path / "whole.pth"
    torch.save(random_checkpoint(), whole)
    contents = {
        "text": b"not a checkpoint",
        "empty": b"",
        "cut": whole.read_bytes()[:5000],
        "page": b"<html><title>404</title></html>",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            UsageError, match=r"cannot be read as a PyTorch checkpoint .* download it again"
        ):
            load_xmem(tmp_path / name, CPU)
    with pytest.raises(UsageError, match="no such file"):
        load_xmem(tmp_path / "nowhere.pth", CPU)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"x": Trap()}, tmp_path / "x.pth")
    with pytest.raises(UsageError, match="cannot be read"):
        load_xmem(tmp_path / "x.pth", CPU)
    assert not (tmp_path / "sprung").exists()
