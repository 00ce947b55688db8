import numpy as np
import pytest
from PIL import Image

from seg_common.errors import UsageError
from seg_research.core.geometry import PixelBox
from seg_research.core.masks import mask_box, read_mask, write_mask


def test_a_mask_survives_the_disk_as_0_and_255(tmp_path):
    mask = np.random.default_rng(0).random((7, 13)) > 0.5
    write_mask(tmp_path / "a" / "m.png", mask)
    with Image.open(tmp_path / "a" / "m.png") as image:
        assert (image.mode, image.size) == ("L", (13, 7))
        assert set(np.unique(np.asarray(image))) == {0, 255}
    assert (read_mask(tmp_path / "a" / "m.png") == mask).all()


@pytest.mark.parametrize("mode", ["L", "P", "1", "I;16", "RGB"])
def test_any_number_but_zero_is_foreground_in_every_mode(tmp_path, mode):
    values = np.zeros((4, 5), np.uint8)
    values[1, 2] = 200
    image = (
        Image.fromarray(values.astype(np.uint16) * 256)
        if mode == "I;16"
        else Image.fromarray(values)
    )
    if mode == "P":
        image = Image.fromarray(np.where(values > 0, 3, 0).astype(np.uint8), "L").convert("P")
    elif mode in ("1", "RGB"):
        image = image.convert(mode)
    image.save(tmp_path / "m.png")
    assert np.argwhere(read_mask(tmp_path / "m.png")).tolist() == [[1, 2]]


def test_a_truncated_mask_is_named(tmp_path):
    write_mask(tmp_path / "m.png", np.random.default_rng(0).random((64, 64)) > 0.5)
    raw = (tmp_path / "m.png").read_bytes()
    (tmp_path / "m.png").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(UsageError, match=r"m\.png: not a readable mask"):
        read_mask(tmp_path / "m.png")
    with pytest.raises(UsageError, match="no such mask"):
        read_mask(tmp_path / "other.png")


def test_box_has_inclusive_extremes():
    mask = np.zeros((10, 20), bool)
    assert mask_box(mask) is None
    mask[3:5, 7:12] = True
    assert mask_box(mask) == PixelBox(7, 3, 11, 4)
