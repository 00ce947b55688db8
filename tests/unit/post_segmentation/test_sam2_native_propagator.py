"""Against stand-ins with the interface of Meta's `sam2` and of SeC; the real `sam2` 1.1.0 was run
by hand (docs/segmentation.md).
"""

import sys
import types

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch comes with the train extra")
pytest.importorskip("transformers", reason="transformers comes with the train extra")

import torch
from PIL import Image

from post_segmentation import sam2_native_propagator, sec_propagator
from post_segmentation.propagator import MaskPrompt
from post_segmentation.registry import find_backend
from post_segmentation.sam2_native_propagator import Sam2NativePropagator, load_sam2_native
from post_segmentation.sec_propagator import SecPropagator, load_sec
from seg_common.errors import UsageError
from seg_research.core.geometry import PixelBox, PixelPoint
from seg_research.core.video import open_video

PROMPTS = (
    MaskPrompt(1, PixelBox(2, 3, 9, 8), (PixelPoint(4, 5),), (PixelPoint(8, 8),)),
    MaskPrompt(0, None, (PixelPoint(1, 1),)),
    MaskPrompt(1, PixelBox(10, 1, 15, 6)),
)


class Predictor:
    """Fills each object's box, one row further down a frame from the key frame on; remembers how it
    was called.
    """

    def __init__(self):
        self.calls, self.files, self.state = [], [], {}

    def init_state(
        self,
        video_path,
        offload_video_to_cpu=False,
        offload_state_to_cpu=False,
        async_loading_frames=False,
    ):
        from pathlib import Path

        self.files = sorted(Path(video_path).iterdir())
        self.images = [Image.open(path).convert("RGB") for path in self.files]
        assert offload_video_to_cpu
        return {}

    def reset_state(self, inference_state):
        inference_state.clear()
        self.calls.append("reset")

    def add_new_points_or_box(
        self,
        inference_state,
        frame_idx,
        obj_id,
        points=None,
        labels=None,
        clear_old_points=True,
        normalize_coords=True,
        box=None,
    ):
        self.calls.append(
            (
                frame_idx,
                None if box is None else box.tolist(),
                None if points is None else points.tolist(),
                labels,
            )
        )
        inference_state[obj_id] = box if box is not None else np.array([*points[0], *points[0]])
        self.key = frame_idx
        return frame_idx, list(inference_state), self._logits(inference_state, frame_idx)

    def add_new_mask(self, inference_state, frame_idx, obj_id, mask):
        self.calls.append((frame_idx, mask))
        rows, columns = np.nonzero(mask)
        inference_state[obj_id] = [columns.min(), rows.min(), columns.max(), rows.max()]
        self.key = frame_idx
        return frame_idx, list(inference_state), self._logits(inference_state, frame_idx)

    def propagate_in_video(
        self, inference_state, start_frame_idx=None, max_frame_num_to_track=None, reverse=False
    ):
        stop = -1 if reverse else len(self.images)
        if reverse and start_frame_idx == 0:
            return
        for position in range(start_frame_idx, stop, -1 if reverse else 1):
            yield position, list(inference_state), self._logits(inference_state, position)

    def _logits(self, state, position):
        width, height = self.images[0].size
        logits = torch.full((len(state), 1, height, width), -1.0)
        for row, (x1, y1, x2, y2) in enumerate(state.values()):
            shift = abs(position - self.key)
            logits[row, 0, int(y1) + shift : int(y2) + shift + 1, int(x1) : int(x2) + 1] = 1.0
        return logits


class SecModel:
    def __init__(self):
        self.grounding_encoder = Predictor()
        self.shown = []

    def propagate_in_video(self, inference_state, start_frame_idx, reverse, init_mask, tokenizer):
        assert tokenizer == "tokenizer"
        self.shown.append((start_frame_idx, reverse, init_mask.copy()))
        yield from self.grounding_encoder.propagate_in_video(
            inference_state, start_frame_idx, reverse=reverse
        )


@pytest.fixture
def video(tmp_path):
    rng = np.random.default_rng(0)
    for position in range(4):
        image = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8))
        image.save(tmp_path / f"{5 * position:03d}.{'png' if position == 2 else 'jpg'}")
    return open_video(tmp_path)


def masks_of(propagator, video, prompts=PROMPTS):
    propagator.open(video)
    for prompt in prompts:
        propagator.prompt(prompt)
    found = {}
    for position, masks, objects in propagator.propagate():
        for number, mask in zip(objects, masks, strict=True):
            assert (number, position) not in found
            found[number, position] = mask
    propagator.close()
    assert len(found) == len(prompts) * len(video)
    return found


def check_masks(found):
    assert found[0, 1][3:9, 2:10].all()
    assert found[0, 1].sum() == 48
    assert found[0, 3][5:11, 2:10].all()
    assert found[0, 0][4:10, 2:10].all()
    assert found[2, 2][2:8, 10:16].all()
    assert found[1, 0][1, 1]


def test_box_and_points_go_in_one_call_and_key_frames_do_not_mix(video):
    predictor = Predictor()
    check_masks(masks_of(Sam2NativePropagator(predictor, torch.device("cpu")), video))
    first, second, third = (call for call in predictor.calls if call != "reset")
    assert first[:3] == (1, [2, 3, 9, 8], [[4, 5], [8, 8]])
    assert first[3].tolist() == [1, 0]
    assert second[:2] == (1, [10, 1, 15, 6])
    assert third[0] == 0
    assert predictor.calls.count("reset") == 2


def test_a_mask_is_given_as_a_mask(video):
    mask = np.zeros((12, 16), bool)
    mask[3:9, 2:10] = True
    predictor = Predictor()
    prompts = (PROMPTS[2], MaskPrompt(1, mask_HW=mask))
    found = masks_of(Sam2NativePropagator(predictor, torch.device("cpu")), video, prompts)
    assert (found[1, 1] == mask).all()
    assert predictor.calls[-1][1] is mask


def test_frames_are_laid_out_as_the_package_reads_them(video):
    predictor = Predictor()
    masks_of(Sam2NativePropagator(predictor, torch.device("cpu")), video)
    assert [path.name for path in predictor.files] == [f"{p:06d}.jpg" for p in range(4)]
    for position, image in enumerate(predictor.images):
        assert (np.asarray(image) == np.asarray(video.read(position))).all()
    assert not predictor.files[0].parent.exists()


def test_sec_sees_one_object_at_a_time_and_its_mask(video):
    model = SecModel()
    found = masks_of(SecPropagator(model, "tokenizer", torch.device("cpu")), video)
    check_masks(found)
    assert model.grounding_encoder.calls.count("reset") == 3
    start, reverse, mask = model.shown[0]
    assert (start, reverse) == (1, False)
    assert (mask[0] == found[0, 1]).all()
    assert {reverse for _, reverse, _ in model.shown} == {False, True}


def test_a_broken_frame_and_a_video_too_long_are_one_line(video, monkeypatch):
    video.files[3].write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"015\.jpg"):
        masks_of(Sam2NativePropagator(Predictor(), torch.device("cpu")), video)
    monkeypatch.setattr(sam2_native_propagator, "_FRAME_BYTES", 10**15)
    with pytest.raises(UsageError, match="holds all 4 frames in memory"):
        masks_of(Sam2NativePropagator(Predictor(), torch.device("cpu")), video)


@pytest.fixture
def package(monkeypatch):
    """A module `sam2.build_sam` that makes what the test puts in `build`."""
    built = types.ModuleType("sam2.build_sam")
    built.seen = []

    def build_sam2_video_predictor(config_file, ckpt_path=None, device="cuda", mode="eval"):
        built.seen.append((config_file, ckpt_path, device))
        return Predictor()

    built.build_sam2_video_predictor = build_sam2_video_predictor
    monkeypatch.setitem(sys.modules, "sam2", types.ModuleType("sam2"))
    monkeypatch.setitem(sys.modules, "sam2.build_sam", built)
    return built


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("sam2.1_hiera_large.pt", "configs/sam2.1/sam2.1_hiera_l.yaml"),
        ("my_sam2.1_hiera_base_plus_tuned.pt", "configs/sam2.1/sam2.1_hiera_b+.yaml"),
        ("sam2_hiera_tiny.pt", "configs/sam2/sam2_hiera_t.yaml"),
    ],
)
def test_the_file_name_tells_the_architecture(package, tmp_path, name, config):
    (tmp_path / name).write_bytes(b"x")
    load_sam2_native(str(tmp_path / name), "cpu")
    assert package.seen == [(config, str(tmp_path / name), "cpu")]


def test_what_is_missing_is_one_line(package, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="no such checkpoint file"):
        load_sam2_native(str(tmp_path / "none.pt"), "cpu")
    (tmp_path / "other.pt").write_bytes(b"x")
    with pytest.raises(UsageError, match="does not tell the architecture"):
        load_sam2_native(str(tmp_path / "other.pt"), "cpu")
    path = tmp_path / "sam2_hiera_tiny.pt"
    path.write_bytes(b"x")

    def refuse(*_, **__):
        raise RuntimeError("size mismatch\nfor everything")

    package.build_sam2_video_predictor = refuse
    with pytest.raises(UsageError, match=r"not a checkpoint of .*size mismatch for everything"):
        load_sam2_native(str(path), "cpu")
    monkeypatch.setitem(sys.modules, "sam2.build_sam", None)
    with pytest.raises(UsageError, match=r"needs sam2.*pip install git\+https://github.com/face"):
        find_backend("sam2-native").configure({"weights": str(path), "device": "cpu"}).build()
    with pytest.raises(UsageError, match=r"code of github\.com/OpenIXCLab/SeC"):
        find_backend("sec").configure({"weights": "anything"}).build()


def test_sec_is_loaded_as_its_authors_do_and_on_a_gpu_only(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "inference", types.ModuleType("inference"))
    for name, attribute in (("configuration_sec", "SeCConfig"), ("modeling_sec", "SeCModel")):
        module = types.ModuleType(f"inference.{name}")
        setattr(module, attribute, object)
        monkeypatch.setitem(sys.modules, f"inference.{name}", module)
    monkeypatch.setattr(sec_propagator, "find_device", lambda _: torch.device("cpu"))
    with pytest.raises(UsageError, match="needs a GPU"):
        load_sec(str(tmp_path), "auto")
