"""The folder of `model-registry up`, and what may be in its way."""

import subprocess
import sys
from pathlib import Path

import pytest

from registry_service.embedded import process
from registry_service.embedded.data_dir import make_data_dir
from registry_service.embedded.process import EmbeddedError, rotate_log


@pytest.mark.parametrize("name", ["", "run", "artifacts", "postgres"])
def test_a_file_where_a_folder_belongs_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "data" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("not ours")
    with pytest.raises(EmbeddedError, match=f"^{path} is not a folder; move it away"):
        make_data_dir(tmp_path / "data")
    assert path.read_text() == "not ours"


@pytest.mark.parametrize("name", ["lock", "envoy.yaml", "registry.log", "gateway.log", "postgres.log"])
def test_a_folder_where_a_file_belongs_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "data" / name).mkdir(parents=True)
    with pytest.raises(EmbeddedError, match=f"^{tmp_path / 'data' / name} is not a file; move it away"):
        make_data_dir(tmp_path / "data")


def test_a_new_folder_is_for_its_user_alone(tmp_path: Path) -> None:
    make_data_dir(tmp_path / "new" / "data")
    assert (tmp_path / "new" / "data").stat().st_mode & 0o077 == 0


def test_a_log_begins_anew_while_a_process_appends_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MAX_LOG_BYTES", 100)
    log = tmp_path / "some.log"
    with log.open("ab") as output:
        writer = subprocess.Popen(
            [sys.executable, "-c", "while line := input(): print(line, flush=True)"],
            stdin=subprocess.PIPE,
            stdout=output,
            text=True,
        )
    assert writer.stdin is not None
    with writer.stdin as lines:
        log.write_text("first\n" * 20)
        rotate_log(log)
        assert (tmp_path / "some.log.1").read_text() == "first\n" * 20
        lines.write("second\n\n")
    assert writer.wait(20) == 0
    assert log.read_text() == "second\n"
    rotate_log(log)
    assert log.read_text() == "second\n"
