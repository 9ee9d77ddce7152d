"""Where a model came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelreg._results import Result


@dataclass(frozen=True, kw_only=True)
class Dataset(Result):
    """A dataset that a model was made from. Has a name or a URI."""

    name: str = ""
    uri: str = ""
    digest: str = ""
    """Digest of the content as `<algorithm>:<hexadecimal digits>`."""


@dataclass(frozen=True, kw_only=True)
class Provenance(Result):
    """What is needed to produce a model again.

    `Provenance.here()` fills in what the working directory and the interpreter tell.
    """

    source_repository: str = ""
    """URL of the source repository."""
    source_commit: str = ""
    training_run: str = ""
    """Identifier or URL of the training run."""
    datasets: Sequence[Dataset] = ()
    parents: Sequence[str] = ()
    """The models that this one was made from: model ids, or references that `push` and `update` resolve to ids."""
    framework: str = ""
    framework_version: str = ""
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment of the training, for example `{"python": "3.12.4"}`."""
    seed: int | None = None
