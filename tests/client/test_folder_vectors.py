"""The packed form of folders, version 1: its golden vectors, read by other programs and by the server."""

import base64
import hashlib
import io
import json
import random
import shutil
import subprocess
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelreg import Registry
from modelreg._folders.packed_form import FolderFile, FolderReader, PackedFiles
from modelreg._folders.portable_names import PathSet, problem_of_path
from modelreg.errors import SourceChanged
from modelreg.folders import FolderPlan, plan_folder, unpack_folder
from modelregistry.v1 import model_pb2

from tests.client.folder_trees import contents, packed, read_tree, write_tree
from tests.client.mreg import Mreg
from tests.registry import RunningRegistry

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "folders" / "version-1.json").read_text(encoding="utf-8")
)
CASES = [pytest.param(case, id=case["title"]) for case in VECTORS["cases"]]
GIB = 1 << 30


def files_of(case: dict[str, Any]) -> dict[str, bytes]:
    return {file["path"]: base64.b64decode(file["base64"]) for file in case["files"]}


@pytest.mark.parametrize("case", CASES)
def test_a_folder_is_packed_into_the_bytes_of_its_vector(case: dict[str, Any], tmp_path: Path) -> None:
    archive = packed(write_tree(tmp_path / "m", files_of(case)))
    assert archive == base64.b64decode(case["zip_base64"])
    assert (len(archive), hashlib.sha256(archive).hexdigest()) == (case["size_bytes"], case["sha256"])


@pytest.mark.parametrize("case", CASES)
def test_a_vector_is_unpacked_into_its_files(case: dict[str, Any], tmp_path: Path) -> None:
    archive = base64.b64decode(case["zip_base64"])
    assert contents(archive) == files_of(case)
    unpack_folder(io.BytesIO(archive), tmp_path / "out")
    assert read_tree(tmp_path / "out") == files_of(case)


def test_java_reads_the_vectors_whole_and_as_a_stream(tmp_path: Path) -> None:
    """A stream is read by the local headers alone, which therefore have all sizes and checksums."""
    java = shutil.which("java")
    if java is None or shutil.which("javac") is None:
        pytest.skip("no JDK is installed")
    for number, case in enumerate(VECTORS["cases"]):
        (tmp_path / f"{number}.zip").write_bytes(base64.b64decode(case["zip_base64"]))
    archives = [f"{number}.zip" for number in range(len(VECTORS["cases"]))]
    program = Path(__file__).with_name("ReadZips.java")
    run = subprocess.run([java, program, *archives], cwd=tmp_path, check=True, capture_output=True, text=True)
    expected = [
        f"{archive} {how} {path.encode().hex()} {len(content)} {hashlib.sha256(content).hexdigest()}"
        for archive, case in zip(archives, VECTORS["cases"], strict=True)
        for how in ("file", "stream")
        for path, content in sorted(files_of(case).items(), key=lambda file: file[0].encode())
    ]
    assert run.stdout.splitlines() == expected


@pytest.mark.parametrize("program", ["unzip", "bsdtar"])
def test_other_programs_unpack_the_vectors(program: str, tmp_path: Path) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    for number, case in enumerate(VECTORS["cases"]):
        archive, target = tmp_path / f"{number}.zip", tmp_path / f"{number}"
        archive.write_bytes(base64.b64decode(case["zip_base64"]))
        target.mkdir()
        options = {"unzip": ["-q", str(archive), "-d", str(target)], "bsdtar": ["-xf", str(archive), "-C", str(target)]}
        environment = {"LC_ALL": "C.UTF-8", "PATH": "/usr/local/bin:/usr/bin:/bin"}
        subprocess.run([program, *options[program]], check=True, env=environment)
        assert read_tree(target) == files_of(case)


CRC_32_OF_ZEROS = {file["zeros"]: file["crc32"] for file in VECTORS["large"]["files"]} | {4 * GIB: 0}  # not checked


def plan_of_holes(folder: Path, sizes: dict[str, int]) -> FolderPlan:
    """Return the plan of a folder with files of zeros that take no space, and whose checksums are not computed."""
    folder.mkdir()
    for path, size in sizes.items():
        with (folder / path).open("wb") as opened:
            opened.truncate(size)
    plan = plan_folder(folder)
    for index, file in enumerate(plan.files):
        plan._packed.set_checksum(index, CRC_32_OF_ZEROS[file.size_bytes])
    return plan


class TestLargeFolders:
    """Files of 4 GiB and more are holes, whose checksums are known and not computed again."""

    @pytest.fixture
    def plan(self, tmp_path: Path) -> FolderPlan:
        return plan_of_holes(tmp_path / "m", {file["path"]: file["zeros"] for file in VECTORS["large"]["files"]})

    def test_have_the_headers_of_their_vector(self, plan: FolderPlan) -> None:
        assert plan.size_bytes == VECTORS["large"]["size_bytes"]
        with plan.open() as reader:
            for piece in VECTORS["large"]["ranges"]:
                expected = base64.b64decode(piece["base64"])
                reader.seek(piece["offset"])
                assert reader.read(len(expected)) == expected

    def test_are_read_by_zipfile(self, plan: FolderPlan) -> None:
        with plan.open() as reader, zipfile.ZipFile(reader) as archive:
            assert [(info.filename, info.file_size) for info in archive.infolist()] == [
                (file.path, file.size_bytes) for file in plan.files
            ]
            for info in archive.infolist():
                with archive.open(info) as file:
                    assert file.read(5) == bytes(5)

    def test_are_read_by_unzip(self, tmp_path: Path) -> None:
        if shutil.which("unzip") is None:
            pytest.skip("unzip is not installed")
        # After a file of 4 GiB - 1 byte, unzip 6.00 mistakes the next one's offset for its size, in ZIPs of anyone.
        plan = plan_of_holes(tmp_path / "m", {"a": 4 * GIB, "b": 5})
        with plan.open() as reader, (tmp_path / "m.zip").open("wb") as archive:
            archive.write(reader.read(100))
            reader.seek(4 * GIB)
            archive.seek(4 * GIB)
            archive.write(reader.read(plan.size_bytes))
        run = subprocess.run(["unzip", "-Zl", tmp_path / "m.zip"], check=True, capture_output=True, text=True)
        assert "2 files, 4294967301 bytes uncompressed" in run.stdout
        unzip = subprocess.run(["unzip", "-p", tmp_path / "m.zip", "b"], check=True, capture_output=True)
        assert unzip.stdout == bytes(5)

    def test_may_have_more_than_65535_files(self, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.write_bytes(b"x")
        status = source.stat()
        files = [
            FolderFile(f"{number:05}", 1, str(source), status.st_mtime_ns, status.st_ino) for number in range(65_536)
        ]
        form = PackedFiles(files)
        for index in range(len(files)):
            form.set_checksum(index, zlib.crc32(b"x"))
        with FolderReader(form) as reader, zipfile.ZipFile(reader) as archive:
            assert len(archive.namelist()) == 65_536
            assert archive.read("65535") == b"x"
            archive.close()
            reader.seek(form.directory_offset)
            assert len(reader.read(form.size_bytes)) == form.size_bytes - form.directory_offset

    def test_are_read_in_constant_memory(self, tmp_path: Path) -> None:
        folder = write_tree(tmp_path / "m", {f"{number}": b"" for number in range(20)})
        for path in folder.iterdir():
            with path.open("wb") as opened:
                opened.truncate(8 << 20)
        plan = plan_folder(folder)
        tracemalloc.start()
        try:
            with plan.open() as reader:
                while reader.read(1 << 20):
                    pass
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 8 << 20


SEGMENT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=8)
PATH = st.lists(SEGMENT, min_size=1, max_size=3).map("/".join)


@st.composite
def trees(draw: st.DrawFn) -> dict[str, bytes]:
    """Files whose paths every platform can have."""
    drawn = draw(st.dictionaries(PATH, st.binary(max_size=300), min_size=1, max_size=8))
    paths = PathSet()
    tree = {
        path: content for path, content in drawn.items() if problem_of_path(path) is None and paths.add(path) is None
    }
    return tree or {"a": b""}


@settings(max_examples=25)
@given(tree=trees(), seed=st.integers())
def test_any_folder_comes_back_as_it_was(
    tree: dict[str, bytes], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    parent = tmp_path_factory.mktemp("any")
    archive = packed(write_tree(parent / "m", tree))
    unpack_folder(io.BytesIO(archive), parent / "out")
    assert read_tree(parent / "out") == tree == contents(archive)
    shuffled = list(tree.items())
    random.Random(seed).shuffle(shuffled)
    assert packed(write_tree(parent / "other", dict(shuffled))) == archive
    assert packed(parent / "out") == archive


def test_the_server_takes_a_packed_folder_and_lists_its_files(server: RunningRegistry, tmp_path: Path) -> None:
    tree = {"model.txt": b"text", "weights/1.bin": bytes(1000), "weights/ü.bin": b"1"}
    archive = packed(write_tree(tmp_path / "m", tree))
    artifact = {"kind": model_pb2.Artifact.KIND_FOLDER, "file_name": "m.zip"}
    model = server.client.register(archive, name="packed-folder", artifact=artifact)
    assert model.artifact.sha256 == hashlib.sha256(archive).hexdigest()
    assert model.warnings == []
    files = server.client.files(model.id).artifact_files
    assert {file.path: file.size_bytes for file in files} == {path: len(content) for path, content in tree.items()}


def test_mreg_warns_of_folders_that_it_leaves_out(mreg: Mreg, name: str, tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "m", {"model.txt": b"text", "notes/": b""})
    pushed = mreg("push", str(folder), f"{name}:1")
    assert "Warning: notes/ has no files and is left out.\n" in pushed.err
    assert mreg("pull", f"{name}:1", "--to", str(tmp_path / "out")).code == 0
    assert read_tree(tmp_path / "out") == {"model.txt": b"text"}


def test_a_push_of_a_folder_that_changes_meanwhile_registers_nothing(
    registry: Registry, name: str, tmp_path: Path
) -> None:
    folder = write_tree(tmp_path / "m", {"a": bytes(24 << 20), "z": b"before"})
    with pytest.raises(SourceChanged, match="z was changed"):
        registry.push(folder, name=name, version="1", progress=lambda *_done: (folder / "z").write_bytes(b"after"))
    assert list(registry.models(f"name = {name}")) == []
