import io

import pytest
from PIL import Image

from retrieval_server.jpeg import jpeg_of, jpeg_of_file


def decoded(jpeg):
    assert jpeg is not None
    return Image.open(io.BytesIO(jpeg))


@pytest.mark.parametrize(
    ("size", "expected"), [((1024, 512), (256, 128)), ((100, 900), (28, 256)), ((40, 30), (40, 30))]
)
def test_large_images_shrink_and_keep_their_shape(tmp_path, size, expected):
    path = tmp_path / "a.png"
    Image.new("RGB", size, "red").save(path)
    image = decoded(jpeg_of_file(path))
    assert (image.format, image.size) == ("JPEG", expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white(tmp_path, mode):
    path = tmp_path / f"{mode}.png"
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).convert(mode).save(
        path, **({"transparency": 0} if mode == "P" else {})
    )
    red, green, blue = decoded(jpeg_of_file(path)).convert("RGB").getpixel((10, 10))
    assert min(red, green, blue) > 250


def test_what_cannot_be_read_is_no_image(tmp_path, caplog):
    text, cut, gone = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"
    text.write_text("<html>")
    Image.effect_noise((64, 64), 90).save(cut)
    cut.write_bytes(cut.read_bytes()[:-2000])
    assert [jpeg_of_file(path) for path in (text, cut, gone)] == [None, None, None]
    assert caplog.text.count("cannot read this image") == 3


def test_a_decompression_bomb_is_no_image(tmp_path, caplog):
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)
    assert jpeg_of_file(path) is None
    assert "bomb.png" in caplog.text


@pytest.mark.parametrize("content", [b"", b"<svg/>", b"GIF89a"])
def test_bytes_from_elsewhere_that_are_no_image_are_a_value_error(content):
    with pytest.raises(ValueError, match=r"."):
        jpeg_of(io.BytesIO(content))
