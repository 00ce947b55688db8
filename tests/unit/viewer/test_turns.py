import pytest
from PIL import Image

from seg_research.records.schema import ImageRecord, TurnRecord
from seg_research.viewer.turns import TURN_CHARS, view_turn


def shown(text, outcome="", sources=()):
    images = tuple(ImageRecord(source) for source in sources)
    return TurnRecord("user", text, outcome=outcome, images=images)


def test_a_policy_turn_shows_its_thinking_and_what_was_written():
    view = view_turn(
        TurnRecord(
            "assistant",
            "<thinking> why </thinking><keyframe>3</keyframe>",
            "why",
            {"kind": "keyframe", "frame_id": 3},
        ),
        {},
    )
    assert (view.by_policy, view.thinking, view.line) == (True, "why", "frame 3")
    assert view.raw.startswith("<thinking>")


def test_an_observation_shows_its_images_where_they_are_at_hand(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("not an image")
    sources = (
        str(tmp_path / "a.png"),
        str(tmp_path / "b.png"),
        "http://example.org/c.png",
        "\0",
        "/dev/zero",
        "x" * 5000,
    )
    view = view_turn(shown("found", "ok", sources), {})
    assert [bool(image.uri) for image in view.images] == [
        True,
        False,
        False,
        False,
        False,
        False,
    ]
    assert view.images[2].caption == "c.png"


def test_an_image_of_the_corpus_is_found_by_its_source(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "kite.png")
    turn = shown("found", "ok", ("image_corpus.jsonl#3", "image_corpus.jsonl#4"))
    kite, absent = view_turn(turn, {"image_corpus.jsonl#3": tmp_path / "kite.png"}).images
    assert (bool(kite.uri), kite.caption) == (True, "kite.png")
    assert (absent.uri, absent.caption) == ("", "image_corpus.jsonl#4")


@pytest.mark.parametrize(
    ("outcome", "state"),
    [("ok", "ok"), ("empty", "warn"), ("fault", "bad"), ("infra", "bad"), ("", "plain")],
)
def test_outcomes_are_told_apart(outcome, state):
    assert view_turn(shown("text", outcome), {}).state == state


def test_a_huge_turn_is_cut():
    view = view_turn(shown("a" * 100_000), {})
    assert len(view.line) < TURN_CHARS + 100
    assert "more characters not shown" in view.line
