"""The functions are the standard library's: a fresh process cannot import this file."""

import multiprocessing
import os

import pytest

from post_segmentation.process_pool import _gpu_names, _start_worker, in_processes
from seg_common.errors import InfraError


def test_one_worker_is_this_process(monkeypatch):
    monkeypatch.setenv("ONLY_HERE", "yes")
    monkeypatch.setattr(os, "getenv", lambda name: f"here: {os.environ[name]}")
    assert list(in_processes(os.getenv, ["ONLY_HERE", "ONLY_HERE"], 1)) == ["here: yes"] * 2


def test_processes_share_gpus_and_cores(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert set(in_processes(os.getenv, ["CUDA_VISIBLE_DEVICES"] * 6, 2, num_gpus=2)) <= {"4", "7"}
    assert set(in_processes(os.getenv, ["OMP_NUM_THREADS"] * 2, 2)) == {
        str(max(1, (os.cpu_count() or 1) // 2))
    }


def test_each_process_has_the_next_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    started = multiprocessing.get_context("spawn").Value("i", 0)
    gpus = _gpu_names(2)
    found = []
    for _ in range(3):
        _start_worker(started, 3, gpus)
        found.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert found == ["4", "7", "4"]


def test_without_a_choice_of_gpus_they_are_counted(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert _gpu_names(3) == ["0", "1", "2"]
    assert _gpu_names(0) == []


def test_a_killed_process_is_one_line():
    with pytest.raises(InfraError, match="fewer --workers"):
        list(in_processes(os._exit, [9, 9], 2))
