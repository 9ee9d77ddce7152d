"""The memory of a push, which does not grow with the artifact."""

import subprocess
import sys
from pathlib import Path

SIZE = 192 << 20
_GROWTH_MIB = 80
"""Far below the size: what a pipe keeps (32 MiB), what is on its way, and what malloc does not return."""

_PUSHES = """
import asyncio, pathlib, subprocess, sys
import modelreg

def peak():
    # Not that of getrusage, which begins with the memory of the parent.
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM:"))

def push_in_loop(source, version):
    async def push():
        async with modelreg.aio.Registry(url) as registry:
            return await registry.push(source, name=name, version=version)
    return asyncio.run(push())

path, name, url = sys.argv[1:]
registry = modelreg.Registry(url)
registry.push(sys.executable, name=name, version="0")  # what every push needs
before = peak()
models = [registry.push(path, name=name, version="1"), push_in_loop(path, "2")]
with subprocess.Popen(["cat", path], stdout=subprocess.PIPE) as process:
    models.append(registry.push(process.stdout, name=name, version="3"))
assert len({model.artifact.sha256 for model in models}) == 1
print(peak() - before)
"""


def test_the_memory_of_a_push_does_not_grow_with_the_artifact(url: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        file.truncate(SIZE)

    process = subprocess.run(
        [sys.executable, "-c", _PUSHES, str(path), name, url], check=True, stdout=subprocess.PIPE, text=True
    )

    assert int(process.stdout) < _GROWTH_MIB
