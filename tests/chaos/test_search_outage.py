"""The search server dies while a run is training: the run stops, says which service failed, and
leaves nothing running behind.
"""

import contextlib
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")

import psutil

from retrieval_server.server import running_server

pytestmark = [pytest.mark.verl, pytest.mark.slow]


def num_logged(run_dir: Path) -> int:
    return sum(path.read_text().count("\n") for path in (run_dir / "trajectories").glob("*.jsonl"))


def test_a_search_server_that_dies_ends_the_run_with_one_line_that_names_it(
    trainer, wait_until, mini, tmp_path
):
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(running_server(mini.text, mini.images))
        process = trainer(
            search="server",
            **{
                "seg.search.url": url,
                "trainer.total_training_steps": 100,
                "trainer.total_epochs": 100,
            },
        )
        wait_until(lambda: num_logged(tmp_path / "run") >= 16, process, 300)
        family = [
            psutil.Process(process.pid),
            *psutil.Process(process.pid).children(recursive=True),
        ]
        assert len(family) > 3, "launcher, driver, Ray and its workers"
    process.wait(120)
    told = [
        line
        for line in (tmp_path / "stderr").read_text().splitlines()
        if line.startswith("seg-research: ")
    ]
    assert process.returncode == 2
    assert len(told) == 1
    assert "failing service" in told[0]
    assert url in told[0]
    _gone, alive = psutil.wait_procs(family, timeout=60)
    assert [p.name() for p in alive] == []
