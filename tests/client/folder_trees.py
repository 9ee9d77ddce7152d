"""Folders for tests: written from a mapping, and packed."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from modelreg.folders import FolderPlan, plan_folder


def write_tree(root: Path, files: Mapping[str, bytes | str]) -> Path:
    """Write files by their paths inside a folder, and return the folder. A path that ends in `/` is an empty folder."""
    root.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        if path.endswith("/"):
            (root / path).mkdir(parents=True, exist_ok=True)
            continue
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def read_tree(root: Path) -> dict[str, bytes]:
    """Return the contents of the files in a folder by their paths."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def packed(folder: Path | FolderPlan) -> bytes:
    """Return the packed form of a folder."""
    plan = folder if isinstance(folder, FolderPlan) else plan_folder(folder)
    with plan.open() as reader:
        content: bytes = reader.read(plan.size_bytes + 1)
    assert len(content) == plan.size_bytes
    return content


def contents(archive: bytes) -> dict[str, bytes]:
    """Return what Python's zipfile reads from a ZIP, after it checked each CRC-32."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return {info.filename: file.read(info) for info in file.infolist()}
