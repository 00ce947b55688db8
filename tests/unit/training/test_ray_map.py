"""On a cluster of two CPU workers started here."""

import functools
import json
import os
import sys

import pytest
from PIL import Image

ray = pytest.importorskip("ray")

from seg_common.errors import InfraError, UsageError  # noqa: E402
from seg_research.cli.main import main  # noqa: E402
from seg_research.training.ray_map import ray_map  # noqa: E402


def work(item, factor):
    if item == 3:
        os._exit(9)
    if item == 99:
        raise UsageError("no weights")
    return item, factor * item


def lost(item, reason):
    return item, reason


@pytest.fixture(scope="module")
def cluster():
    here = sys.modules[__name__]
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    ray.cloudpickle.register_pickle_by_value(here)  # the workers cannot import a test
    yield
    ray.cloudpickle.unregister_pickle_by_value(here)
    ray.shutdown()


def test_results_come_back_and_a_lost_task_takes_no_other_with_it(cluster):
    found = dict(
        ray_map(functools.partial(work, factor=10), [1, 2, 3, 4], on_lost=lost, num_gpus=1)
    )
    assert {item: found[item] for item in (1, 2, 4)} == {1: 10, 2: 20, 4: 40}
    assert "lost" in found[3]


def test_what_the_user_must_change_stops_everything(cluster):
    with pytest.raises(UsageError, match="no weights"):
        list(ray_map(functools.partial(work, factor=1), [99, 1], on_lost=lost))


def test_nothing_to_do_is_done_at_once(cluster):
    assert list(ray_map(work, [], on_lost=lost)) == []


def test_no_cluster_is_one_line(monkeypatch):
    def refuse(**_):
        raise ConnectionError("nothing\nthere")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(InfraError, match="no Ray cluster at auto: nothing there"):
        list(ray_map(work, [1], on_lost=lost, address="auto"))


def test_the_segment_command_runs_on_the_cluster(cluster, tmp_path, capsys):
    rows = []
    for name in ("a", "b", "gone"):
        video = tmp_path / name
        if name != "gone":
            video.mkdir()
            for frame in range(3):
                Image.new("RGB", (32, 24), (frame, 0, 90)).save(video / f"{frame}.png")
        region = {"box_norm1000": [100, 100, 600, 700]}
        rows.append(
            {
                "schema_version": 1,
                "id": name,
                "video_path": str(video),
                "keyframe": {"id": 1},
                "objects": [region],
            }
        )
    path = tmp_path / "predictions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["segment", str(path), "--backend", "box", "--ray", "--workers", "2"]) == 1
    printed = capsys.readouterr()
    assert "masks of 2 of 3 predictions" in printed.out
    assert "gone: no such video" in printed.err
    assert len(list((tmp_path / "seg").glob("*/*.png"))) == 6
