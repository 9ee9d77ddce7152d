"""Temporary folders that a server which runs as another user can get to."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def accessible_folder() -> Iterator[Path]:
    """Makes a folder beside pytest's own.

    As root, Postgres runs as somebody else, and pytest closes its folders to
    others each time that a session starts.
    """
    folder = Path(tempfile.mkdtemp(prefix="model-registry-test-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
