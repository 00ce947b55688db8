"""Workers of a pool end with the process that started them."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

POOL = """
import os, sys, time
from {module} import {pool}

def work(number):
    print(os.getpid(), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    list({pool}(work, [1, 2], 2))
"""
POOLS = [
    ("post_segmentation.process_pool", "in_processes"),
    ("seg_research.data.parallel", "map_ordered"),
]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize(("module", "pool"), POOLS)
def test_workers_of_a_killed_process_end_at_once(tmp_path, module, pool):
    """They would go on writing into the folder that a later run writes to."""
    program = tmp_path / "program.py"
    program.write_text(POOL.format(module=module, pool=pool))
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True) as run:
        workers = [psutil.Process(int(run.stdout.readline())) for _ in range(2)]
        assert all(worker.is_running() for worker in workers)
        os.kill(run.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(workers, timeout=20)
        for worker in alive:
            worker.kill()
    assert alive == []
