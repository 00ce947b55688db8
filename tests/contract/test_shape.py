"""The shape of the code, counted: line width, one class name for one thing."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("seg_common", "seg_research", "retrieval_server", "post_segmentation")
BESIDE = ("tests", "examples", "benchmarks", ".ci")
MAX_COLUMNS = 100


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def test_lines_fit_100_columns():
    wide = [
        f"{path.relative_to(ROOT)}:{number}: {len(line)} columns"
        for path in sources(*PACKAGES, *BESIDE)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > MAX_COLUMNS
    ]
    assert wide == []


def test_a_class_name_means_one_thing():
    places: dict[str, list[str]] = defaultdict(list)
    for path in sources(*PACKAGES):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(ROOT)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}
