"""The keys of stored objects. Only this module builds or checks one.

    artifacts/<uuid>          the artifact of a model, an upload or a registration in progress
    <model id>/<file name>    an artifact that `import-intel` left where an Intel deployment stored it

The S3 adapter stores an object under its key in the bucket. The local adapter
stores it as a file at `<folder>/<key>`; its own files are under
`<folder>/.partial/`, which no key can name. A backup has the same tree in its
folder `objects/`.

A key that this module builds is new, contains no text of a client, and is
written once. The database knows each key before the store receives a byte: the
key is in `models`, in `uploads`, or in the ledger of unreferenced objects
(`domain.ports.ObjectLedger`). Garbage collection after a crash therefore reads
the database and never lists the store.
"""

import re
import uuid

ARTIFACT_PREFIX = "artifacts/"
"""Prefix of every key that this module builds."""

# A segment never starts with a dot. So a key can neither leave a folder ("..") nor name the files of an adapter.
# 200 characters leave room for the suffixes that an adapter appends.
_KEY = re.compile(r"(?!.{201})[A-Za-z0-9_-][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")


def new_object_key() -> str:
    """Return a key that no object has and no reader knows."""
    return f"{ARTIFACT_PREFIX}{uuid.uuid4()}"


def is_object_key(text: str) -> bool:
    """Return whether the artifact stores accept a text as a key."""
    return _KEY.fullmatch(text) is not None


def check_object_key(key: str) -> None:
    """Raise ValueError unless the artifact stores accept a key: a wrong one is a bug of the caller."""
    if not is_object_key(key):
        raise ValueError(f"invalid object key {key!r}: must match {_KEY.pattern}")
