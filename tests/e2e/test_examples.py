"""The programs under examples/, built from generated stubs alone, on a running product.

They need other toolchains and package registries, so they run where EXAMPLES names them: `EXAMPLES="go typescript"`.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.products import Product

ROOT = Path(__file__).parents[2]
PROGRAMS = {
    "go": [["buf", "generate"], ["go", "vet", "./..."], ["go", "run", ".", "{grpc}"]],
    "typescript": [
        ["npm", "ci", "--no-audit", "--no-fund"],
        ["npm", "run", "generate"],
        ["npm", "run", "build"],
        ["npm", "start", "--", "http://{grpc}"],
    ],
}
STEPS = [
    "registered example-",
    "@production is version 1.1.0",
    "rolled back to version 1.0.0",
    "move 3: ",
    "move 1: ",
    ":1.1.0 aliases ",
    ":1.0.0 aliases ",
    "with the right SHA-256",
    "ALIAS_ROLLED_BACK",
    "refused as MODEL_NOT_FOUND",
]
"""What each program prints, in this order."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("language", PROGRAMS)
def test_a_program_written_from_the_generated_stubs_does_it_all(
    product: Product, language: str, tmp_path: Path
) -> None:
    if language not in os.environ.get("EXAMPLES", "").split():
        pytest.skip(f"EXAMPLES does not name {language}")
    # Not where it lies: what is generated and installed stays out of the checkout.
    folder = tmp_path / "examples" / language
    ignored = shutil.ignore_patterns("gen", "node_modules", "dist")
    shutil.copytree(ROOT / "examples" / language, folder, ignore=ignored)
    (tmp_path / "protos").symlink_to(ROOT / "protos")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    printed = ""
    for command in PROGRAMS[language]:
        done = subprocess.run(
            [part.format(grpc=product.grpc_address) for part in command],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        printed = done.stdout
        assert done.returncode == 0, printed
    position = 0
    for step in STEPS:
        assert step in printed[position:], f"{step!r} does not follow in:\n{printed}"
        position = printed.index(step, position)
