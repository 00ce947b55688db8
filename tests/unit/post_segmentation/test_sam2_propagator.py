import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch comes with the train extra")
pytest.importorskip("transformers", reason="transformers comes with the train extra")

import torch
from PIL import Image

from post_segmentation import sam2_propagator, weights
from post_segmentation.backends.sam2 import DEFAULT_WEIGHTS, Sam2Config
from post_segmentation.propagator import MaskPrompt
from post_segmentation.registry import find_backend
from post_segmentation.sam2_propagator import Sam2Propagator, load_sam2
from post_segmentation.torch_device import find_device
from seg_common.errors import UsageError
from seg_research.core.geometry import ImageSize, PixelBox, PixelPoint
from seg_research.testing.sam2 import tiny_edgetam, tiny_sam2, tiny_sam3_tracker

SIZE = ImageSize(90, 50)
NUM_FRAMES = 10
WINDOW = Sam2Config().window
PROMPTS = (
    MaskPrompt(
        4, PixelBox(10, 10, 50, 40), (PixelPoint(30, 20), PixelPoint(25, 25)), (PixelPoint(80, 5),)
    ),
    MaskPrompt(1, None, (PixelPoint(40, 30),)),
    MaskPrompt(8, PixelBox(2, 2, 60, 44)),
    MaskPrompt(4, PixelBox(0, 0, 20, 20)),
)


class Clip:
    """Frames in memory that counts how often each is read."""

    def __init__(self, num_frames=NUM_FRAMES, sizes=()):
        rng = np.random.default_rng(0)
        self.names = [f"{position:05d}" for position in range(num_frames)]
        self.size = SIZE
        self.read_positions = []
        self._images = [
            Image.fromarray(rng.integers(0, 255, (SIZE.height_px, SIZE.width_px, 3), np.uint8))
            for _ in range(num_frames)
        ]
        for position, size in dict(sizes).items():
            self._images[position] = self._images[position].resize(size)

    def __len__(self):
        return len(self.names)

    def read(self, position):
        self.read_positions.append(position)
        return self._images[position]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model():
    return tiny_sam2()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny"
    model.save_pretrained(path)
    return path


@pytest.fixture
def num_encoded(model):
    """A list that grows by one for every frame that goes through the image encoder."""
    calls = []
    hook = model.vision_encoder.register_forward_hook(
        lambda _module, inputs, _found: calls.extend(inputs[0])
    )
    yield calls
    hook.remove()


def masks_of(propagator, prompts, clip=None):
    clip = clip or Clip()
    propagator.open(clip)
    for prompt in prompts:
        propagator.prompt(prompt)
    found = {}
    for position, masks, objects in propagator.propagate():
        for number, mask in zip(objects, masks, strict=True):
            assert (number, position) not in found, "every object hears of every frame once"
            found[number, position] = mask
    assert len(found) == len(prompts) * len(clip)
    return np.stack(
        [
            np.stack([found[number, position] for position in range(len(clip))])
            for number in range(len(prompts))
        ]
    )


def test_many_questions_get_the_masks_that_each_gets_alone(model):
    together = masks_of(Sam2Propagator(model, WINDOW), PROMPTS)
    assert together.shape == (4, NUM_FRAMES, *SIZE[::-1])
    assert 0.02 < together.mean() < 0.98
    for number, prompt in enumerate(PROMPTS):
        assert (together[number] == masks_of(Sam2Propagator(model, WINDOW), [prompt])[0]).all()


def test_objects_of_one_key_frame_come_together(model):
    propagator = Sam2Propagator(model, WINDOW)
    propagator.open(Clip())
    for prompt in PROMPTS:
        propagator.prompt(prompt)
    for _, _, objects in propagator.propagate():
        assert (0 in objects) == (3 in objects)


@pytest.mark.parametrize("num_questions", [1, 16])
def test_each_frame_is_encoded_once_a_sweep_however_many_questions(
    model, num_encoded, num_questions
):
    prompts = [MaskPrompt(3, PixelBox(n, n, 40 + n, 30 + n)) for n in range(num_questions)]
    clip = Clip()
    masks_of(Sam2Propagator(model, window=0), prompts, clip)
    forward, backward = NUM_FRAMES - 3, 3
    assert len(num_encoded) == len(clip.read_positions) == forward + backward


@pytest.mark.parametrize(("window", "spared"), [(0, 0), (3, 3), (32, 7)])
def test_a_window_spares_the_second_sweep_the_frames_it_keeps(model, num_encoded, window, spared):
    """Key frames 1 to 8: the sweeps meet on seven frames (1 to 7). The masks are the same however
    they come.
    """
    found = masks_of(Sam2Propagator(model, window), PROMPTS)
    assert len(num_encoded) == (NUM_FRAMES - 1) + 8 - spared
    assert (found == masks_of(Sam2Propagator(model, 0), PROMPTS)).all()


def test_frames_are_read_one_ahead_and_let_go(model):
    clip = Clip()
    propagator = Sam2Propagator(model, WINDOW)
    propagator.open(clip)
    propagator.prompt(MaskPrompt(0, PixelBox(0, 0, 9, 9)))
    for position, _, _ in propagator.propagate():
        assert len(clip.read_positions) <= position + 2


def test_the_first_and_the_last_and_the_only_frame_can_be_key_frames(model):
    for position, num_frames in ((0, 3), (2, 3), (0, 1)):
        assert (
            masks_of(
                Sam2Propagator(model, WINDOW),
                [MaskPrompt(position, PixelBox(5, 5, 60, 40))],
                Clip(num_frames),
            ).shape[1]
            == num_frames
        )


def test_box_and_all_points_are_one_prompt(model, monkeypatch):
    begun = []
    propagator = Sam2Propagator(model, WINDOW)
    original = propagator._tracker.begin
    monkeypatch.setattr(
        propagator._tracker, "begin", lambda *given: begun.append(given[2:]) or original(*given)
    )
    masks_of(propagator, PROMPTS[:1])
    ((points, labels),) = begun
    assert labels.tolist() == [2, 3, 1, 1, 0]
    assert torch.allclose(points[0], torch.tensor([10 * 64 / 90, 10 * 64 / 50]))
    assert torch.allclose(points[4], torch.tensor([80 * 64 / 90, 5 * 64 / 50]))


def test_negative_points_change_the_mask(model):
    prompt = MaskPrompt(4, PixelBox(10, 10, 50, 40), (PixelPoint(30, 20),))
    with_negative = MaskPrompt(4, prompt.box, prompt.points, (PixelPoint(45, 12),))
    assert (
        masks_of(Sam2Propagator(model, WINDOW), [prompt])
        != masks_of(Sam2Propagator(model, WINDOW), [with_negative])
    ).any()


def test_a_mask_is_taken_as_it_is_and_followed(model):
    mask = np.zeros((SIZE.height_px, SIZE.width_px), bool)
    mask[10:40, 20:70] = True
    (found,) = masks_of(Sam2Propagator(model, WINDOW), [MaskPrompt(4, mask_HW=mask)])
    assert (found[4] == mask).mean() > 0.97, "its edge passes through the resolution of the model"
    box = MaskPrompt(4, PixelBox(20, 10, 69, 39))
    together = masks_of(Sam2Propagator(model, WINDOW), [box, MaskPrompt(4, mask_HW=mask)])
    assert (together[1] == found).all()
    assert (together[0] != found).any()


def test_frames_become_what_the_processor_of_transformers_makes_of_them(model):
    """Resized with antialiasing to whole grey values, then normalised; PIL's own resampling is
    within one grey value of that.
    """
    propagator = Sam2Propagator(model, WINDOW, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))
    image = Clip().read(0)
    (ours,) = propagator._prepare(np.array(image))
    resized = torch.from_numpy(np.array(image.resize((64, 64), Image.Resampling.BILINEAR))).permute(
        2, 0, 1
    )
    values = (
        ours * torch.tensor([0.2, 0.25, 0.5])[:, None, None]
        + torch.tensor([0.5, 0.4, 0.3])[:, None, None]
    )
    assert (values * 255 - resized).abs().max() < 1.01
    assert torch.allclose(values * 255, (values * 255).round(), atol=1e-3)


def test_a_frame_of_another_size_is_named(model):
    with pytest.raises(UsageError, match="frame 00006 is 40x30, the first frame is 90x50"):
        masks_of(Sam2Propagator(model, WINDOW), PROMPTS, Clip(sizes={6: (40, 30)}))


def test_a_full_gpu_is_one_line(model, monkeypatch):
    propagator = Sam2Propagator(model, WINDOW)

    def fill(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(propagator._tracker, "encode", fill)
    with pytest.raises(UsageError, match="out of memory"):
        masks_of(propagator, PROMPTS)


@pytest.mark.parametrize("make", [tiny_sam2, tiny_edgetam, tiny_sam3_tracker])
def test_a_folder_is_loaded_as_what_it_is(make, tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    loaded = load_sam2(str(tmp_path), "cpu", WINDOW)
    assert type(loaded._model) is type(model)
    assert not loaded._model.training
    assert type(loaded._model.config.mask_decoder_config) is type(model.config.mask_decoder_config)
    for (name, expected), found in zip(
        model.state_dict().items(), loaded._model.state_dict().values(), strict=True
    ):
        assert torch.equal(expected, found), name
    assert (masks_of(loaded, PROMPTS) == masks_of(Sam2Propagator(model, WINDOW), PROMPTS)).all()


def test_the_folder_states_how_frames_are_normalised(folder, tmp_path):
    assert load_sam2(str(folder), "cpu", WINDOW)._mean_C11.flatten().tolist() == pytest.approx(
        [0.485, 0.456, 0.406]
    )
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "processor_config.json").write_text(
        json.dumps({"video_processor": {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}})
    )
    loaded = load_sam2(str(tmp_path), "cpu", WINDOW)
    assert loaded._mean_C11.flatten().tolist() == [0.5] * 3
    assert loaded._std_C11.flatten().tolist() == [0.25] * 3


def test_weights_that_cannot_be_used_are_one_line(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        UsageError, match="facebook/none: this model is not on this machine"
    ) as offline:
        load_sam2("facebook/none", "cpu", WINDOW)
    assert "\n" not in str(offline.value)
    with pytest.raises(UsageError, match=r"no config\.json"):
        load_sam2(str(tmp_path), "cpu", WINDOW)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(
        UsageError, match="a model of type 'bert'; expected one of edgetam_video, sam2"
    ):
        load_sam2(str(tmp_path), "cpu", WINDOW)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(UsageError, match="cannot load this model"):
        load_sam2(str(tmp_path), "cpu", WINDOW)
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:9000])
    with pytest.raises(UsageError, match="cannot load this model"):
        load_sam2(str(tmp_path), "cpu", WINDOW)


def test_devices_are_checked():
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UsageError, match="expected auto, cpu, cuda"):
        find_device("gpu")
    with pytest.raises(UsageError, match="this machine has the CPU and"):
        find_device("cuda:99")


def backend(name, **options):
    return find_backend(name).configure(options)


def test_a_back_end_is_known_by_its_weights(folder, tmp_path):
    known = backend("sam2", weights=str(folder)).identity()
    assert known.startswith("sam2 ")
    assert backend("sam2", weights=str(folder), device="cpu", window=3).identity() == known, (
        "neither device nor window changes the masks"
    )
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert backend("sam2", weights=str(copy)).identity() == known, (
        "the same weights elsewhere are the same weights"
    )
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    assert backend("sam2", weights=str(copy)).identity() != known
    assert backend("grabcut").identity() == "grabcut"


def test_missing_weights_are_named_before_anything_is_loaded():
    with pytest.raises(UsageError, match="no such checkpoint"):
        backend("sam2-native", weights="none.pt").identity()


def test_a_back_end_is_built_with_its_options(folder):
    made = backend("sam2", weights=str(folder), device="cpu", window=5).build()
    assert isinstance(made, Sam2Propagator)
    assert made._window == 5


def test_only_what_is_on_this_machine_counts_as_cached(monkeypatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    assert not weights.is_cached(DEFAULT_WEIGHTS)
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda *_: "/cache/model.safetensors"
    )
    assert weights.is_cached(DEFAULT_WEIGHTS)


def test_the_default_batches_on_gpus_alone():
    assert sam2_propagator.OBJECTS_PER_BATCH == {"cuda": 16, "cpu": 1}
