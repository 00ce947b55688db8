import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from post_segmentation import pipeline
from post_segmentation.backend import Backend, BackendConfig, BackendSpec, PromptKind
from post_segmentation.mask_writer import MaskFormat, encode_rle
from post_segmentation.pipeline import digest, read_rollout, request_of, segment
from post_segmentation.propagator import FrameMasks
from post_segmentation.registry import find_backend
from post_segmentation.segment_video import MaskRequest, SegmentSettings, Status
from seg_common.errors import UsageError
from seg_research.core.geometry import Norm1000Box
from seg_research.core.masks import mask_box, read_mask
from seg_research.core.prediction import PredictedObject
from seg_research.core.rle import Rle, decode_rle
from seg_research.core.video import FrameId
from seg_research.records.reader import read_row

BOX, GRABCUT = (find_backend(name).configure({}) for name in ("box", "grabcut"))
ROLLOUTS = Path(__file__).parents[4] / "shared/data/rollouts/step_020.jsonl"


def run(path, out, **settings):
    return segment(read_rollout(path, 0)[0], SegmentSettings(out, BOX, **settings))


def statuses(outcomes):
    return {outcome.sample_id: outcome.status for outcome in outcomes}


def snapshot(out):
    return {p.relative_to(out): p.stat().st_mtime_ns for p in out.rglob("*.png")}


def test_masks_of_every_frame_lie_where_the_original_puts_them(
    clip, row_of, write_predictions, tmp_path
):
    outcomes = run(write_predictions(row_of(clip)), tmp_path / "seg")
    assert statuses(outcomes) == {"disc/0": Status.MASKED}
    assert sorted(p.stem for p in (tmp_path / "seg/disc/0").iterdir()) == clip.names
    first = read_mask(tmp_path / "seg/disc/0/00000.png")
    assert first.shape == (80, 120)
    assert (first & clip.masks[0]).sum() == clip.masks[0].sum(), (
        "the box of the key frame covers its object"
    )


def test_the_key_frame_is_found_by_name_on_disk(clip, row_of, write_predictions, tmp_path):
    """The recorded number is 8; as a position it would be another frame (the original's
    mistake).
    """
    row = row_of(clip, position=2)
    assert row["keyframe"]["id"] == 8
    segment(
        read_rollout(write_predictions(row), 0)[0],
        SegmentSettings(tmp_path / "seg", GRABCUT),
    )
    mask = read_mask(tmp_path / "seg/disc/0/00008.png")
    assert (mask & clip.masks[2]).sum() / (mask | clip.masks[2]).sum() > 0.9


def test_several_objects_are_merged(clip, row_of, write_predictions, tmp_path):
    row = row_of(clip)
    row["objects"].append({"box_norm1000": [900, 0, 1000, 100], "points_norm1000": []})
    run(write_predictions(row), tmp_path / "seg")
    mask = read_mask(tmp_path / "seg/disc/0/00000.png")
    assert mask[2, 115]
    assert mask[clip.masks[0]].all()


@pytest.mark.parametrize("backend", [BOX, GRABCUT])
def test_objects_of_one_answer_may_stand_on_different_frames(clip, tmp_path, backend):
    """Two halves of the drawn disc's way: each object is found from its own frame."""
    objects = tuple(
        PredictedObject(
            FrameId(int(clip.names[position])), Norm1000Box(*norm_box_of(clip, position))
        )
        for position in (0, 17)
    )
    request = MaskRequest("two", clip.folder, objects)
    settings = SegmentSettings(tmp_path / "seg", backend, vis=tmp_path / "vis")
    assert statuses(segment([request], settings)) == {"two": Status.MASKED}
    for position in (0, 17):
        mask = read_mask(tmp_path / f"seg/two/{clip.names[position]}.png")
        assert (mask & clip.masks[position]).sum() > 0.95 * clip.masks[position].sum()
    assert (tmp_path / "vis/two.mp4").stat().st_size > 1000
    for found in objects:
        alone = MaskRequest(f"{found.frame_id}", clip.folder, (found,))
        segment([alone], SegmentSettings(tmp_path / "seg", backend))
    for name in clip.names:
        single = [read_mask(tmp_path / f"seg/{found.frame_id}/{name}.png") for found in objects]
        merged = read_mask(tmp_path / f"seg/two/{name}.png")
        assert (merged == np.logical_or(*single)).all()


def norm_box_of(clip, position):
    box = mask_box(clip.masks[position])
    width, height = 120, 80
    return [
        1000 * box.x1 / width,
        1000 * box.y1 / height,
        1000 * box.x2 / width,
        1000 * box.y2 / height,
    ]


@pytest.mark.parametrize("backend", [BOX, GRABCUT])
def test_a_mask_of_the_policy_starts_a_propagation_without_a_box(clip, tmp_path, backend):
    mask = Rle(80, 120, encode_rle(clip.masks[2])["counts"])
    request = MaskRequest("m", clip.folder, (PredictedObject(FrameId(8), mask=mask),))
    segment([request], SegmentSettings(tmp_path / "seg", backend))
    assert (read_mask(tmp_path / "seg/m/00008.png") == clip.masks[2]).all(), "as it was given"
    later = read_mask(tmp_path / "seg/m/00012.png")
    assert (later & clip.masks[3]).sum() > (0.9 if backend is GRABCUT else 0.5) * later.sum()


def test_objects_on_no_frame_are_a_failure_with_its_line(clip, row_of, write_predictions, tmp_path):
    path = write_predictions(row_of(clip, "good"), row_of(clip, "nowhere") | {"keyframe": None})
    found, refused = read_rollout(path, 0)
    assert [request.sample_id for request in found] == ["good"]
    assert [outcome.sample_id for outcome in refused] == ["nowhere"]
    assert "line 2: field 'objects.0': no frame" in refused[0].reason


@pytest.mark.parametrize("change", [{"objects": []}, {"keyframe": None, "objects": []}])
def test_without_an_answer_all_masks_are_empty(clip, row_of, write_predictions, tmp_path, change):
    outcomes = run(write_predictions(row_of(clip) | change), tmp_path / "seg")
    assert statuses(outcomes) == {"disc/0": Status.EMPTY}
    masks = [read_mask(path) for path in (tmp_path / "seg/disc/0").iterdir()]
    assert len(masks) == len(clip.names)
    assert not np.any(masks)


def test_one_failure_does_not_take_the_rest(clip, row_of, write_predictions, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(clip.folder, broken)
    (broken / "00012.png").write_bytes(b"no image")
    path = write_predictions(
        row_of(clip, "good"),
        row_of(clip, "gone", video_path=str(tmp_path / "nowhere")),
        row_of(clip, "broken", video_path=str(broken)),
        row_of(clip, "off", keyframe={"id": 3, "position": 0}),
        row_of(clip, "nameless", video_path=None),
        row_of(clip, "../escape"),
        row_of(clip, "good too"),
    )
    outcomes = segment(read_rollout(path, 0)[0], SegmentSettings(tmp_path / "seg", GRABCUT))
    reasons = {o.sample_id: o.reason for o in outcomes if o.status is Status.FAILED}
    assert set(reasons) == {"gone", "broken", "off", "nameless", "../escape"}
    assert "no such video" in reasons["gone"]
    assert "00012.png" in reasons["broken"]
    assert "key frame 3 is not in the video" in reasons["off"]
    assert "names no video" in reasons["nameless"]
    assert not (tmp_path / "escape").exists()
    assert len(list((tmp_path / "seg" / "good too").iterdir())) == len(clip.names)


def test_a_second_run_does_nothing(clip, row_of, write_predictions, tmp_path):
    path = write_predictions(row_of(clip, "a"), row_of(clip, "b", objects=[]))
    run(path, tmp_path / "seg")
    before = snapshot(tmp_path / "seg")
    assert statuses(run(path, tmp_path / "seg")) == {"a": Status.KEPT, "b": Status.KEPT}
    assert snapshot(tmp_path / "seg") == before
    assert set(statuses(run(path, tmp_path / "seg", overwrite=True)).values()) == {
        Status.MASKED,
        Status.EMPTY,
    }


def test_what_changed_or_is_gone_is_done_again(clip, row_of, write_predictions, tmp_path):
    path = write_predictions(row_of(clip, "a"), row_of(clip, "b"), row_of(clip, "c"))
    run(path, tmp_path / "seg")
    (tmp_path / "seg/a/00004.png").unlink()
    path = write_predictions(row_of(clip, "a"), row_of(clip, "b", position=5), row_of(clip, "c"))
    assert statuses(run(path, tmp_path / "seg")) == {
        "a": Status.MASKED,
        "b": Status.MASKED,
        "c": Status.KEPT,
    }


def test_after_a_kill_the_rest_is_done_and_nothing_twice(
    clip, row_of, write_predictions, tmp_path, monkeypatch
):
    monkeypatch.setattr(pipeline, "MAX_GROUP", 1)
    path = write_predictions(*(row_of(clip, name) for name in "abc"))
    seen = []

    def stop_after_the_first(outcome):
        seen.append(outcome.sample_id)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment(
            read_rollout(path, 0)[0],
            SegmentSettings(tmp_path / "seg", BOX),
            stop_after_the_first,
        )
    with (tmp_path / "seg/done.jsonl").open("a") as manifest:
        manifest.write('{"id": "b", "dig')
    assert list(statuses(run(path, tmp_path / "seg")).values()).count(Status.KEPT) == 1
    assert len((tmp_path / "seg/done.jsonl").read_text().splitlines()) == 3


def test_processes_give_the_same_masks(clip, row_of, write_predictions, tmp_path):
    rows = [row_of(clip, f"{p}", position=p) for p in range(3)] + [
        row_of(clip, "x", video_path=str(tmp_path / "none"))
    ]
    path = write_predictions(*rows)
    alone, together = run(path, tmp_path / "one"), run(path, tmp_path / "two", num_workers=2)
    assert statuses(alone) == statuses(together)
    for mask in (tmp_path / "one").rglob("*.png"):
        assert (
            mask.read_bytes()
            == (tmp_path / "two" / mask.relative_to(tmp_path / "one")).read_bytes()
        )


def test_rollouts_are_chosen_by_number(clip, row_of, write_predictions):
    path = write_predictions(row_of(clip), row_of(clip, "second", sample_idx=1))
    assert [request.sample_id for request in read_rollout(path, 1)[0]] == ["second"]
    with pytest.raises(UsageError, match="no prediction with sample_idx 7"):
        read_rollout(path, 7)


def test_the_digest_covers_what_masks_depend_on_and_nothing_else(clip, row_of):
    def digest_of(row, engine="box", mask_format=MaskFormat.PNG):
        return digest(request_of(read_row(row)), engine, mask_format)

    base = digest_of(row_of(clip))
    assert digest_of(row_of(clip, query="other words", ability="x")) == base
    others = [
        row_of(clip, position=1),
        row_of(clip, video_path="/else"),
        row_of(clip, objects=[]),
    ]
    assert base not in {digest_of(row) for row in others}
    assert base not in {
        digest_of(row_of(clip), engine="sam2 0123"),
        digest_of(row_of(clip), mask_format=MaskFormat.RLE),
    }


class Recorder:
    """A back-end that covers a point's pixel on every frame, two objects after the others, and
    counts rounds.
    """

    def __init__(self):
        self.rounds, self.prompts = [], []

    def open(self, frames):
        self.frames = frames

    def prompt(self, prompt):
        self.prompts.append(prompt)

    def propagate(self):
        prompts, self.prompts = self.prompts, []
        self.rounds.append(prompts)
        width, height = self.frames.size
        for position in range(len(self.frames)):
            for objects in (range(0, len(prompts), 2), range(1, len(prompts), 2)):
                masks = np.zeros((len(objects), height, width), bool)
                for row, number in enumerate(objects):
                    masks[
                        row, int(prompts[number].points[0].y), int(prompts[number].points[0].x)
                    ] = True
                yield FrameMasks(position, masks, tuple(objects))

    def close(self):
        self.frames = None


def test_all_predictions_of_a_video_go_through_one_round_and_each_gets_its_own(
    clip, row_of, write_predictions, tmp_path
):
    recorder = Recorder()
    points_only = frozenset({PromptKind.POINTS})
    spec = BackendSpec("recorder", "", BackendConfig, lambda _: recorder, points_only)
    shared = Backend(replace(spec, shares_work=True), BackendConfig())
    rows = [
        row_of(clip, f"q{n}", position=n, objects=[{"points_norm1000": [[100 * n, 500]]}])
        for n in range(9)
    ]
    rows.insert(4, row_of(clip, "empty", objects=[]))
    outcomes = segment(
        read_rollout(write_predictions(*rows), 0)[0],
        SegmentSettings(tmp_path / "seg", shared),
    )
    assert statuses(outcomes)["empty"] is Status.EMPTY
    (asked,) = recorder.rounds
    assert [prompt.position for prompt in asked] == list(range(9))
    assert len({prompt.group_id for prompt in asked}) == 9
    for n in range(9):
        for name in clip.names:
            assert np.argwhere(read_mask(tmp_path / f"seg/q{n}/{name}.png")).tolist() == [
                [40, 12 * n]
            ]


def test_run_lengths_hold_the_masks_of_the_images(clip, row_of, write_predictions, tmp_path):
    pytest.importorskip("pycocotools")
    path = write_predictions(row_of(clip))
    run(path, tmp_path / "png")
    assert statuses(run(path, tmp_path / "rle", mask_format=MaskFormat.RLE)) == {
        "disc/0": Status.MASKED
    }
    lines = [
        json.loads(line) for line in (tmp_path / "rle/disc/0/masks.jsonl").read_text().splitlines()
    ]
    assert [line["frame"] for line in lines] == clip.names
    for line in lines:
        assert (decode_rle(line) == read_mask(tmp_path / f"png/disc/0/{line['frame']}.png")).all()
    assert statuses(run(path, tmp_path / "rle", mask_format=MaskFormat.RLE)) == {
        "disc/0": Status.KEPT
    }
    assert statuses(run(path, tmp_path / "rle")) == {"disc/0": Status.MASKED}, (
        "the other format is not there yet"
    )
    assert sorted(p.stem for p in (tmp_path / "rle/disc/0").iterdir()) == clip.names, (
        "and takes the place of the first"
    )
