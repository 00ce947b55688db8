"""An image that is sent to a server again and again crosses once, arrives as it was, and leaves
nothing behind.
"""

import copy
import gc
import os
import pickle
import re
import time
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")

import ray
from PIL import Image
from ray._private.internal_api import memory_summary

from seg_research.training.rollout.ray_image_ref import ImageLender

LENDER = ImageLender()
lend = LENDER.lend


def image(seed: int) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    )


def test_it_is_the_same_image():
    original = image(1)
    assert isinstance(lend(original), Image.Image)
    assert np.array_equal(np.asarray(lend(original)), np.asarray(original))
    assert (lend(original).size, lend(original).mode) == ((48, 64), "RGB")


def test_trajectories_that_show_one_image_lend_it_together():
    original = image(1)
    lent = lend(original)
    assert lend(original) is lent
    assert lend(image(1)) is not lent


def test_no_image_is_taken_for_one_that_is_gone():
    for seed in range(20):
        assert np.array_equal(np.asarray(lend(image(seed))), np.asarray(image(seed)))


def test_nothing_is_kept_when_the_last_trajectory_has_ended():
    gc.collect()
    lent = lend(image(1))
    before = len(LENDER)
    del lent
    gc.collect()
    assert len(LENDER) == before - 1


def test_where_no_ray_runs_the_pixels_themselves_are_pickled(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for copied in (pickle.loads(pickle.dumps(lend(image(1)))), copy.deepcopy(lend(image(1)))):
        assert np.array_equal(np.asarray(copied), np.asarray(image(1)))


@pytest.fixture(scope="module")
def running() -> Iterator[None]:
    ray.init(
        num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=100_000_000
    )
    yield
    ray.shutdown()


@pytest.fixture
def server(running):
    """Like verl's: an actor whose methods are coroutines; keeps the images of its last turn."""

    class Server:
        def __init__(self):
            self.seen = []

        async def generate(self, image_data):
            self.seen = image_data
            return (
                os.getpid(),
                [(type(image), np.asarray(image)) for image in image_data],
                [id(image) for image in image_data],
            )

        async def later(self):
            return [np.asarray(image) for image in self.seen]

    return ray.remote(Server).options(num_cpus=0).remote()


@pytest.mark.slow
def test_a_server_gets_plain_images_and_each_once(server):
    originals = [image(1), image(2)]
    lent = [lend(image) for image in originals]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "tobytes", None)  # no pixels are read any more
        answers = [ray.get(server.generate.remote(lent)) for _ in range(3)]
    pid, seen, ids = answers[-1]
    assert pid != os.getpid()
    assert all(
        kind is Image.Image and np.array_equal(pixels, np.asarray(o))
        for (kind, pixels), o in zip(seen, originals, strict=True)
    )
    assert ids == answers[0][2]
    del lent, originals
    gc.collect()
    assert [
        np.array_equal(kept, np.asarray(image(seed)))
        for seed, kept in zip((1, 2), ray.get(server.later.remote()), strict=True)
    ]


@pytest.mark.slow
def test_the_object_store_is_emptied_when_the_images_are_gone(server):
    lent = [lend(image(seed)) for seed in range(20)]
    ray.get(server.generate.remote(lent))
    assert ray.get(server.later.remote())[0].shape == (64, 48, 3)
    assert num_stored() >= 20
    del lent
    gc.collect()
    deadline = time.monotonic() + 120
    while num_stored() and time.monotonic() < deadline:  # Ray frees about once a second
        time.sleep(0.2)
    assert num_stored() == 0


def num_stored() -> int:
    found = re.search(
        r"Plasma memory usage [^,]*, (\d+) objects",
        summary := memory_summary(ray.get_runtime_context().gcs_address, stats_only=True),
    )
    assert found, summary
    return int(found[1])
