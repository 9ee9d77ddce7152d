"""Temporary folders that a server of another user can enter."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def accessible_folder() -> Iterator[Path]:
    """Create a folder outside of pytest's.

    As root, Postgres runs as another user, and pytest closes its folders to other users at each start of a session.
    """
    folder = Path(tempfile.mkdtemp(prefix="model-registry-test-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
