"""The doctor finds nothing wrong with the installation that the tests run in."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("verl", reason="verl comes with the train extra")


@pytest.mark.slow
def test_this_installation_is_sound():
    done = subprocess.run(
        [sys.executable, "-m", "seg_research.cli.main", "doctor", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    told = json.loads(done.stdout)
    assert [f for f in told["findings"] if f["severity"] == "problem"] == []
    assert done.returncode == 0
    found = {f["topic"]: f["found"] for f in told["findings"]}
    assert found["verl on the CPU"] == "our platform is picked"
    assert found["sentence encoder, offline"] == "384 dimensions"
