import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_research.viewer.text import legible, shorten


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abc\u202edcba", "abc[U+202E]dcba"),
        ("\x00\x1b[31m", "[U+0000][U+001B][31m"),
        ("a\u200bb\ufeffc", "a[U+200B]b[U+FEFF]c"),
        ("\ud800x", "[U+D800]x"),
        ("one\r\ntwo\tthree", "one\ntwo\tthree"),
        ("می‌خواهم 👩‍🔬 Ünïcode", "می‌خواهم 👩‍🔬 Ünïcode"),
    ],
)
def test_invisible_characters_are_spelt_out_and_others_stay(text, expected):
    assert legible(text) == expected


@given(st.text(alphabet=st.characters()))
def test_the_result_can_be_encoded_and_is_stable(text):
    legible(text).encode("utf-8")
    assert legible(legible(text)) == legible(text)


def test_long_text_is_cut_and_says_so():
    assert shorten("a" * 100_000, 10) == "a" * 10 + "… [99,990 more characters not shown]"
    assert shorten("a" * 10, 10) == "a" * 10
