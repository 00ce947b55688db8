"""Images are decoded once for all who show them."""

import pytest
from PIL import Image

from seg_common.errors import UsageError
from seg_research.core.geometry import ImageSize
from seg_research.core.image_cache import ImageCache


def test_an_image_is_read_once_and_again_when_its_file_changes(tmp_path):
    path, size, images = tmp_path / "00000.png", ImageSize(8, 4), ImageCache()
    Image.new("RGB", (32, 32), "red").save(path)
    shown = images.read(path, size)
    assert (shown.size, shown.getpixel((0, 0))) == (size, (255, 0, 0))
    assert images.read(path, size) is shown
    assert images.read(path, ImageSize(4, 4)).size == (4, 4)
    Image.new("RGB", (16, 48), "blue").save(path)
    assert images.read(path, size).getpixel((0, 0)) == (0, 0, 255)


def test_two_caches_have_nothing_in_common(tmp_path):
    path, size = tmp_path / "00000.png", ImageSize(8, 4)
    Image.new("RGB", (32, 32), "red").save(path)
    assert ImageCache().read(path, size) is not ImageCache().read(path, size)


def test_an_image_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"00000\.png: no such image"):
        ImageCache().read(tmp_path / "00000.png", ImageSize(8, 4))
