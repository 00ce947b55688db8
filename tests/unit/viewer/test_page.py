import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser

import pytest

from seg_common.errors import UsageError
from seg_research.viewer import page
from seg_research.viewer.page import build_table, render, write_report
from seg_research.viewer.run_folder import read_run

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script src=https://example.org/x.js></script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style></details></body><iframe src=//example.org>",
    "{{ 7*7 }}{% include 'x' %}",
    "javascript:alert(1)",
    "<!-- --> ]]> &lt;script&gt;",
    "\u202egnp.exe\u202c\x00\x1b[2J",
    "<b>" * 33_334,
]


class Outline(HTMLParser):
    """Tags in order, every attribute, and what stands inside script elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        if self.cdata_elem == "script":
            self.scripts.append(data)


def fill_with(run_dir, text):
    """Put the text into every string that the page shows, keys of reward terms included."""
    summary = json.loads((run_dir / "summary.json").read_text())
    summary.update(title=text, command=text, notes=[text])
    summary["rows"] = [{"name": text, "reward": 1.0, text: 2.0}]
    summary["predictions"] = [{**entry, "name": text} for entry in summary["predictions"]]
    (run_dir / "summary.json").write_text(json.dumps(summary))
    for name in ("before", "after"):
        path = run_dir / name / "predictions.jsonl"
        row = json.loads(path.read_text())
        row.update(
            query=text,
            ability=text,
            stop_reason=text,
            frame_names=["00003", text],
            rewards={text: 1.0},
        )
        for turn in row["turns"]:
            turn["text"] = f"<thinking>{text}</thinking>" if turn["role"] == "assistant" else text
            turn["outcome"] = text
            turn["images"] = [text]
            if turn.get("action"):
                turn["action"] = dict.fromkeys(turn["action"], text) | {
                    "kind": turn["action"]["kind"]
                }
        path.write_text(json.dumps(row) + "\n")
    (run_dir / "curve.jsonl").write_text(
        "".join(json.dumps({"step": s, "reward": s, "terms": {text: s}}) + "\n" for s in range(3))
    )


def test_the_page_shows_every_part(run_dir):
    html = render(read_run(run_dir))
    expected = [
        "A run",
        "seed <b>0",
        "a note of the run",
        "J&amp;F",
        "55.0",
        "100 %",
        "mean reward",
        "Reward terms",
    ]
    expected += [
        "Please find the crest.",
        "crest of Babir",
        "I must look this up.",
        "The crest of Babir is a kite.",
        "malformed",
    ]
    expected += ["not run", "J 100"]
    assert [part for part in expected if part not in html] == []
    outline = Outline(html)
    assert outline.tags.count("rect") == 2 * 3  # truth, halo and answer for either policy
    assert "Left out" not in html


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_foreign_text_never_becomes_markup(run_dir, text):
    fill_with(run_dir, "harmless")
    plain = Outline(render(read_run(run_dir)))
    fill_with(run_dir, text)
    html = render(read_run(run_dir))
    assert Outline(html).tags == plain.tags
    names = {name for name, _ in Outline(html).attributes}
    assert names - {"tabindex"} == {name for name, _ in plain.attributes} - {"tabindex"}
    assert not re.search("[\u202a-\u202e\x00\x1b]", html)


def test_text_that_is_not_unicode_does_no_harm(run_dir):
    fill_with(run_dir, "\ud800 lone")
    assert "Left out" in render(read_run(run_dir)).encode("utf-8").decode("utf-8")


def test_nothing_is_loaded_from_anywhere_and_only_our_script_may_run(run_dir):
    fill_with(run_dir, HOSTILE[1])
    html = render(read_run(run_dir))
    outline = Outline(html)
    addresses = [
        value
        for name, value in outline.attributes
        if name in {"src", "href", "action", "data", "poster", "srcset", "xlink:href"}
    ]
    assert addresses
    assert all(value.startswith(("data:image/jpeg;base64,", "#")) for value in addresses)
    assert not [name for name, _ in outline.attributes if name.startswith("on")]
    (script,) = ["".join(outline.scripts)]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(
        value for name, value in outline.attributes if name == "content" and "default-src" in value
    )
    assert (
        policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    assert "@import" not in html
    assert "url(" not in html


def test_the_script_sets_text_and_never_markup():
    script = page._asset("report.js")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(", script
    )


def test_long_text_is_cut_with_a_note(run_dir):
    fill_with(run_dir, "a" * 100_000)
    html = render(read_run(run_dir))
    assert "more characters not shown" in html
    assert len(html) < 400_000


def test_the_same_run_gives_the_same_page(run_dir):
    assert render(read_run(run_dir)) == render(read_run(run_dir))


def test_missing_pieces_are_named_on_the_page(run_dir):
    (run_dir / "curve.jsonl").unlink()
    html = render(read_run(run_dir))
    assert "Left out" in html
    assert "curve.jsonl: no such file" in html
    assert "<h2>Learning" not in html
    assert "<h2>Result" in html


def test_a_page_that_would_grow_too_large_says_what_it_leaves_out(run_dir, monkeypatch):
    monkeypatch.setattr(page, "IMAGE_BUDGET_BYTES", 100)
    assert "1 of 1 trajectories are left out" in render(read_run(run_dir))


def test_the_table_has_known_columns_first_and_leaves_empty_ones_out():
    table = build_table(
        [
            {"name": "a", "JF": 50.0, "frames": 3, "F": None},
            {"name": "b", "reward": 0.5, "valid": 0.25},
        ]
    )
    assert table.columns == ("reward", "well-formed", "J&F", "frames")
    (_, first), (_, second) = table.rows
    assert [cell.text for cell in first] == ["–", "–", "50.0", "3"]
    assert [cell.text for cell in second] == ["0.50", "25 %", "–", "–"]
    assert (first[2].percent, second[1].percent) == (50.0, 25.0)


@pytest.mark.parametrize("value", ["1", None, True, math.nan, math.inf, 10**400, [1]])
def test_what_is_no_number_is_a_dash(value):
    table = build_table([{"name": "a", "reward": value}, {"name": "b", "reward": 1.0}])
    assert table.rows[0][1][0].text == "–"


def test_no_rows_no_table():
    assert build_table([]) is None


def test_an_unwritable_place_is_a_usage_error(run_dir, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        write_report(run_dir, tmp_path / "file" / "report.html")
