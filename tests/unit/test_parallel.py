import os
import subprocess
import sys
from pathlib import Path

TESTS = """
from pathlib import Path

import pytest

@pytest.fixture(scope="module", params=["one", "other"])
def server(request):
    with Path(__file__).with_name(f"{request.param}.starts").open("a") as starts:
        starts.write("started")

@pytest.mark.parametrize("number", range(4))
def test_of_a_server(server, number): ...
"""


def test_tests_that_share_a_fixture_of_their_module_run_on_one_worker(tmp_path: Path) -> None:
    (tmp_path / "test_servers.py").write_text(TESTS, encoding="utf-8")
    plugins = ("-p", "xdist", "-p", "tests.parallel")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, "--numprocesses=2", "--dist=loadgroup", "--rootdir=.", "."],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "8 passed" in run.stdout, run.stdout + run.stderr
    assert [(tmp_path / f"{name}.starts").read_text() for name in ("one", "other")] == ["started", "started"]
