"""A mask back-end is one `BackendSpec`; everything else derives from it."""

import pickle
import re
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from post_segmentation import backends, registry
from post_segmentation.backend import (
    BackendConfig,
    BackendSpec,
    NeededPackage,
    PromptKind,
    describe,
)
from post_segmentation.propagator import FrameMasks
from post_segmentation.registry import choose_backend, find_backend, list_backends, register
from seg_common.errors import UsageError
from seg_research.cli.main import main
from seg_research.core.masks import read_mask

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True)
class DotConfig(BackendConfig):
    radius: int = field(default=1, metadata=describe("half side of the square", "PX"))


class DotPropagator:
    """A back-end of a user: a square around each inside point, on every frame."""

    def __init__(self, radius):
        self.radius, self.prompts = radius, []

    def open(self, frames):
        self.frames = frames

    def prompt(self, prompt):
        assert (prompt.box, prompt.negative_points, prompt.mask_HW) == (None, (), None)
        self.prompts.append(prompt)

    def propagate(self):
        width, height = self.frames.size
        masks = np.zeros((len(self.prompts), height, width), bool)
        for mask, prompt in zip(masks, self.prompts, strict=True):
            for point in prompt.points:
                x, y = int(point.x), int(point.y)
                mask[
                    y - self.radius : y + self.radius + 1, x - self.radius : x + self.radius + 1
                ] = 1
        self.prompts = []
        for position in range(len(self.frames)):
            yield FrameMasks(position, masks)

    def close(self):
        self.frames = None


def build_dot(config):
    return DotPropagator(config.radius)


DOT = BackendSpec(
    name="dot",
    summary="a square around each point",
    config_type=DotConfig,
    build=build_dot,
    prompts=frozenset({PromptKind.POINTS}),
)


@pytest.fixture
def dot(monkeypatch):
    """The toy back-end, in a module outside the package; the registry is put back afterwards."""
    list_backends()
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    module = types.ModuleType("someones_backend")
    module.DOT = DOT
    monkeypatch.setitem(sys.modules, "someones_backend", module)
    return DOT


def test_a_back_end_from_outside_the_package_runs_by_its_address(
    dot, clip, row_of, write_predictions, capsys, caplog
):
    region = {
        "box_norm1000": [0, 0, 500, 500],
        "points_norm1000": [[500, 500]],
        "negative_points_norm1000": [[900, 900]],
    }
    path = write_predictions(row_of(clip, objects=[region]), row_of(clip, "b", objects=[region]))
    arguments = ["segment", str(path), "--backend", "someones_backend:DOT", "--workers", "1"]
    assert main([*arguments, "--option", "radius=2"]) == 0
    assert "by dot" in capsys.readouterr().out
    assert read_mask(path.parent / "seg/disc/0/00000.png").sum() == 25
    notes = [record.getMessage() for record in caplog.records]
    assert notes == [
        "back-end dot makes no use of boxes; 2 of 2 objects have some",
        "back-end dot makes no use of negative points; 2 of 2 objects have some",
    ], "said once a run, not once a prediction"


def test_a_registered_back_end_is_known_by_name_and_in_help(dot, capsys):
    register(dot)
    assert find_backend("dot") is dot
    with pytest.raises(SystemExit):
        main(["segment", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "dot: a square around each point" in printed
    assert "--radius PX half side of the square (dot)" in printed
    register(dot)
    with pytest.raises(ValueError, match="registered twice"):
        register(BackendSpec("dot", "another", DotConfig, build_dot, frozenset()))


def test_no_name_of_a_back_end_stands_outside_its_own_module():
    """Adding one touches one file: the pipeline and the command line know none by name."""
    names = re.compile("|".join(rf"[\"']{re.escape(spec.name)}[\"']" for spec in list_backends()))
    shared = ("backend", "registry", "pipeline", "segment_video", "prompts", "mask_writer")
    files = [Path(backends.__file__).parents[1] / f"{module}.py" for module in shared]
    files.append(ROOT / "seg_research/cli/segment.py")
    knowing = [path.name for path in files if names.search(path.read_text())]
    assert knowing == []


def test_a_back_end_travels_to_another_process(dot):
    for spec in list_backends():
        required = {"sam2+xmem": {"xmem_weights": "x"}, "sam2-native": {"weights": "x"}}
        chosen = spec.configure(required.get(spec.name, {}))
        assert pickle.loads(pickle.dumps(chosen)) == chosen
        assert hash(chosen) == hash(spec.configure(required.get(spec.name, {})))


def test_no_back_end_of_that_name(dot):
    with pytest.raises(UsageError, match="expected one of sam2, grabcut, box"):
        find_backend("sam9")
    with pytest.raises(UsageError, match="no_such_module"):
        find_backend("no_such_module:DOT")
    with pytest.raises(UsageError, match="NOT_THERE"):
        find_backend("someones_backend:NOT_THERE")
    with pytest.raises(UsageError, match="has no BackendSpec"):
        find_backend("os:path")


def test_options_are_checked_and_converted(dot):
    assert dot.configure({"radius": "3"}).config == DotConfig(3)
    with pytest.raises(
        UsageError, match="back-end dot: radius='x': Input should be a valid integer"
    ):
        dot.configure({"radius": "x"})
    with pytest.raises(UsageError, match="back-end dot takes no --weights; it takes --radius"):
        dot.configure({"weights": "here"})
    with pytest.raises(UsageError, match="grabcut takes no --weights; it takes no options"):
        find_backend("grabcut").configure({"weights": "here"})
    with pytest.raises(UsageError, match=r"sam2\+xmem needs --xmem-weights: checkpoint file"):
        find_backend("sam2+xmem").configure({})
    with pytest.raises(UsageError, match="greater than or equal to 0"):
        find_backend("sam2").configure({"window": -1})


def test_a_package_that_is_missing_is_named_with_what_to_install():
    def build(_):
        raise ModuleNotFoundError("No module named 'heavy.part'", name="heavy.part")

    spec = BackendSpec(
        "x", "", DotConfig, build, frozenset(), (NeededPackage("heavy", "pip install heavy"),)
    )
    with pytest.raises(UsageError, match=r"x needs heavy\.part: pip install heavy"):
        spec.configure({}).build()


def test_the_first_back_end_that_lacks_nothing_is_chosen(monkeypatch):
    monkeypatch.setattr("post_segmentation.backends.sam2.is_cached", lambda _: False)
    chosen, lacking = choose_backend({})
    assert chosen.name == "grabcut"
    assert "is not on this machine" in lacking[0]
    assert choose_backend({"weights": "somewhere"})[0].name == "sam2"
    monkeypatch.setattr("post_segmentation.backends.sam2.is_cached", lambda _: True)
    assert choose_backend({})[0].name == "sam2"


def test_an_option_that_is_not_for_the_chosen_one_is_refused(monkeypatch):
    monkeypatch.setattr("post_segmentation.backends.sam2.is_cached", lambda _: False)
    with pytest.raises(UsageError, match="grabcut takes no --device"):
        choose_backend({"device": "cuda"})


def test_the_table_of_the_document_says_what_the_back_ends_say():
    rows = [
        f"| `{spec.name}` | {spec.summary} | {options_of(spec)} | {prompts_of(spec)} | "
        f"{needs_of(spec)} |"
        for spec in list_backends()
    ]
    page = (ROOT / "docs" / "segmentation.md").read_text()
    written = [line for line in page.splitlines() if line.startswith("| `")][: len(rows)]
    assert written == rows, "the table of docs/segmentation.md should be:\n" + "\n".join(rows)


def options_of(spec):
    return ", ".join(f"`{option.flag}`" for option in spec.options) or "none"


def prompts_of(spec):
    return ", ".join(kind for kind in PromptKind if kind in spec.prompts)


def needs_of(spec):
    return "; ".join(dict.fromkeys(package.install for package in spec.packages)) or "nothing"
