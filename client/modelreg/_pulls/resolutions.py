"""What references meant when they were last pulled, for pulls without the network."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from modelreg._files import replace
from modelreg._pulls.removal import remove_path
from modelreg.models import Artifact, Model
from modelreg.references import format_reference, parse_reference

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """What a pull needs to know of a model."""

    model_id: str
    name: str
    version: str
    artifact: Artifact

    @staticmethod
    def of(model: Model) -> Resolution:
        """Return the resolution of a model."""
        return Resolution(model_id=model.id, name=model.name, version=model.version, artifact=model.artifact)

    @property
    def label(self) -> str:
        """The model for people."""
        return f"{self.name}:{self.version}"


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is resolved."""

    url: str
    """URL of the registry."""
    reference: str
    precisions: Sequence[str] = ()
    at: datetime | None = None

    def key(self) -> dict[str, Any]:
        """Return the question as JSON data, the same for all spellings."""
        parsed = parse_reference(self.reference)
        reference = format_reference(parsed.name, project=parsed.project, version=parsed.version, alias=parsed.alias)
        return {
            "url": self.url,
            "reference": reference,
            "precisions": sorted(self.precisions),
            "at": None if self.at is None else self.at.isoformat(),
        }


class Resolutions:
    """The resolutions that the cache remembers.

    Args:
        directory: The directory of the cache.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "resolutions"
        self._downloads = directory / "downloads"

    def find(self, question: Question) -> Resolution | None:
        """Return what the last pull of a reference found, or None if there was none."""
        key = question.key()
        try:
            data: Any = json.loads(self._path(key).read_bytes())
            if data["version"] != _VERSION or data["question"] != key:
                return None
            found = data["model"]
            return Resolution(
                model_id=str(found["id"]),
                name=str(found["name"]),
                version=str(found["version"]),
                artifact=Artifact(
                    file_name=str(found["file_name"]),
                    media_type=str(found["media_type"]),
                    size_bytes=int(found["size_bytes"]),
                    sha256=str(found["sha256"]),
                    kind="folder" if found["kind"] == "folder" else "file",
                ),
            )
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def remember(self, question: Question, resolution: Resolution) -> None:
        """Record what a pull found. A cache that cannot be written stays as it is."""
        key, artifact = question.key(), resolution.artifact
        model = {
            "id": resolution.model_id,
            "name": resolution.name,
            "version": resolution.version,
            "file_name": artifact.file_name,
            "media_type": artifact.media_type,
            "size_bytes": artifact.size_bytes,
            "sha256": artifact.sha256,
            "kind": artifact.kind,
        }
        content = json.dumps({"version": _VERSION, "question": key, "model": model}, indent=1).encode()
        path = self._path(key)
        with suppress(OSError):
            if path.exists() and path.read_bytes() == content:
                return
            for folder in (path.parent, self._downloads):
                folder.mkdir(parents=True, exist_ok=True)
            # Where it is deleted if this process does not come to give it its name.
            temporary = self._downloads / f"private-{uuid.uuid4().hex}.json"
            try:
                temporary.write_bytes(content)
                replace(temporary, path)
            except BaseException:
                remove_path(temporary)
                raise

    def _path(self, key: dict[str, Any]) -> Path:
        registry = hashlib.sha256(key["url"].encode()).hexdigest()[:16]
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        return self._directory / registry / f"{name}.json"
