"""Where a model came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

from modelreg._results import Result

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from modelreg.models import Model


@dataclass(frozen=True, kw_only=True)
class Dataset(Result):
    """A dataset that a model was made from. Has a name or a URI."""

    name: str = ""
    uri: str = ""
    digest: str = ""
    """Digest of the content as `<algorithm>:<hexadecimal digits>`."""

    def _summary(self) -> str:
        return self.name or self.uri


@dataclass(frozen=True, kw_only=True)
class Provenance(Result):
    """What is needed to produce a model again.

    `Provenance.here()` fills in what the working directory and the interpreter tell.
    """

    _columns: ClassVar = (
        "source_repository",
        "source_commit",
        "training_run",
        "datasets",
        "parents",
        "framework",
        "framework_version",
        "hyperparameters",
        "seed",
        # Long: of what does not fit, a table shows nothing.
        "environment",
    )

    source_repository: str = ""
    """URL of the source repository."""
    source_commit: str = ""
    training_run: str = ""
    """Identifier or URL of the training run."""
    datasets: Sequence[Dataset] = ()
    parents: Sequence[str] = ()
    """The models that this one was made from: model ids, or references that `push` and `update` resolve to ids. A
    `Model` becomes its id. One text or `Model` is one parent."""
    framework: str = ""
    framework_version: str = ""
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment of the training, for example `{"python": "3.12.4"}`."""
    seed: int | None = None

    if TYPE_CHECKING:
        # Takes models, too, while the attribute `parents` has texts only.
        def __init__(self, **fields: Unpack[_Fields]) -> None: ...

    def __post_init__(self) -> None:
        parents: Any = self.parents
        # A text is a sequence of texts, too: its letters.
        if isinstance(parents, (str, Result)):
            parents = (parents,)
        if isinstance(parents, Sequence) and any(isinstance(parent, Result) for parent in parents):
            parents = tuple(map(_parent, parents))
        object.__setattr__(self, "parents", parents)

    def _summary(self) -> str:
        return self._named_summary()

    @classmethod
    def here(cls, **more: Unpack[_Fields]) -> Provenance:
        """Return the provenance of a model that this interpreter made, in its working directory.

        Fills in what can be found out:

        - `source_repository`: the URL of the remote `origin` of git, else of the first remote, without credentials
        - `source_commit`: the commit of the working directory; in a submodule, that of the submodule
        - `environment`: `python` and `platform`; `git_dirty`, which is `true` if tracked files differ from the commit;
          and `packages.<name>` with the version of each installed package, up to 128 KiB of them

        Without git, outside of a repository, or if git takes longer than 10 seconds, what it would tell is missing.
        Starts no program but git. The command line and environment variables are not read, because they may hold
        secrets.

        Args:
            more: The other fields, or other values. `environment` is added to what was found.

        Examples:
            >>> Provenance.here(parents=["vad:6.2.2"], seed=42).environment["python"]  # doctest: +SKIP
            '3.12.4'
        """
        # These import much, which only this call needs.
        from modelreg import _environment, _git  # noqa: PLC0415

        found = _git.checkout()
        environment = _environment.interpreter()
        if found.is_dirty is not None:
            environment["git_dirty"] = str(found.is_dirty).lower()
        environment.update(_environment.packages())
        environment.update(more.pop("environment", {}))
        fields: dict[str, Any] = {
            "source_repository": found.repository,
            "source_commit": found.commit,
            "environment": environment,
        }
        return cls(**(fields | dict(more)))


def _parent(parent: Any) -> Any:
    """Return the id of a model, or anything else as it is."""
    from modelreg.models import Model  # noqa: PLC0415 - which imports this module

    return parent.id if isinstance(parent, Model) else parent


class _Fields(TypedDict, total=False):
    """The fields of `Provenance`."""

    source_repository: str
    source_commit: str
    training_run: str
    datasets: Sequence[Dataset]
    parents: Sequence[Model | str] | Model
    framework: str
    framework_version: str
    hyperparameters: Mapping[str, Any]
    environment: Mapping[str, str]
    seed: int | None
