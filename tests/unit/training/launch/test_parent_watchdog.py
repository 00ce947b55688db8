"""A trainer ends when its launcher is killed; other processes of the run live on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seg_research.training.launch.parent_watchdog import LAUNCHER_VARIABLE, launcher_has_gone

CHILD = """
import time
from seg_research.training.launch.parent_watchdog import end_with_launcher
end_with_launcher()
print("ready", flush=True)
time.sleep(600)
"""
LAUNCHER = f"""
import os, subprocess, sys
os.environ["{LAUNCHER_VARIABLE}"] = str(os.getpid())
command = [sys.executable, "-c", {CHILD!r}]
child = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def test_a_child_ends_with_the_launcher_it_names():
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER], stdout=subprocess.PIPE)
    pid = int(launcher.stdout.readline())
    assert is_running(pid)
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    give_up = time.monotonic() + 120
    while is_running(pid):
        assert time.monotonic() < give_up, "the child lives on"
        time.sleep(0.05)


COUNT_THREADS = """
import threading
from seg_research.training.launch.parent_watchdog import end_with_launcher
end_with_launcher()
print(threading.active_count())
"""


@pytest.mark.parametrize("launcher", [None, "not the parent"])
def test_a_process_that_the_launcher_did_not_start_is_left_alone(launcher):
    environment = {name: value for name, value in os.environ.items() if name != LAUNCHER_VARIABLE}
    environment |= {LAUNCHER_VARIABLE: str(os.getppid())} if launcher else {}
    done = subprocess.run(
        [sys.executable, "-c", COUNT_THREADS],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "1"


def test_a_launcher_that_has_ended_is_told_from_one_that_runs(monkeypatch):
    monkeypatch.delenv(LAUNCHER_VARIABLE, raising=False)
    assert not launcher_has_gone()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as launcher:
        monkeypatch.setenv(LAUNCHER_VARIABLE, str(launcher.pid))
        assert not launcher_has_gone()
        launcher.kill()
        while not launcher_has_gone():  # first a zombie, as nobody has asked how it ended
            time.sleep(0.01)
    assert launcher_has_gone()
