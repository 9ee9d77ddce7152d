# Generated from modelreg/_async by `make generate`. Do not edit.
"""Pulling, reading and verifying artifacts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import grpc
from modelregistry.v1 import artifact_service_pb2

from modelreg import _arguments
from modelreg._pulls.patterns import Patterns
from modelreg._pulls.resolutions import Question, Resolution, Resolutions
from modelreg._pulls.target_folders import refuse_inside
from modelreg._sync import runtime
from modelreg._sync.artifact_files import artifact_files
from modelreg._sync.connection import failure_of_stream
from modelreg._sync.downloads import FileDownload
from modelreg._sync.folder_downloads import FolderDownload
from modelreg._sync.listing import Listing
from modelreg._sync.models import ModelCalls
from modelreg._sync.remote_file import open_artifact, open_file
from modelreg._sync.selection_downloads import SelectionDownload
from modelreg._wire import convert, methods
from modelreg._wire.retries import Retries
from modelreg._wire.rpc_errors import Failure
from modelreg.cache import Cache
from modelreg.errors import NotCached
from modelreg.models import Model
from modelreg.progress import Progress, ProgressOption
from modelreg.server import ArtifactFile, Verification

_UNFINISHED = Failure(grpc.StatusCode.UNAVAILABLE, "the verification did not finish")


class ArtifactCalls(ModelCalls):
    """The calls about artifacts."""

    _cache: Cache | None = None

    @property
    def cache(self) -> Cache:
        """The cache of pulled artifacts on this machine. Its methods read and write files only.

        Raises:
            InvalidArgument: `MODELREG_CACHE_MAX_BYTES` is no size, or there is no home directory.
        """
        if self._cache is None:
            self._cache = Cache()
        return self._cache

    def pull(
        self,
        model: Model | str,
        *,
        to: str | os.PathLike[str] | None = None,
        files: str | Sequence[str] | None = None,
        precision: str | Sequence[str] = (),
        at: datetime | None = None,
        offline: bool = False,
        verify: bool = False,
        overwrite: bool = False,
        progress: ProgressOption = None,
    ) -> Path:
        """Return the file or folder of a model, complete and verified.

        The model is resolved once, so an alias that moves meanwhile changes nothing. Without `to`, the result is in
        the cache and read-only: a file of mode 0444, or the unpacked folder, from which later pulls delete what is not
        of the model. What the cache has is not downloaded again. An interrupted download is continued, also by a later
        process.

        Args:
            model: A model or a reference.
            to: A folder to put the result into, which is made if it is missing. A file gets its own name in it, and
                replaces one of that name. A folder's files go directly into it, and it must be new or empty. The cache
                is not filled.
            files: Paths inside the artifact, or patterns of them: `*` and `?` stop at `/`, `**` does not. The result
                is a folder that has these files, and with `to` they replace files of the same paths. Default: the whole
                artifact.
            precision: Only a model with exactly these precisions, as of `model`.
            at: The alias as it was then, as of `model`.
            offline: Whether to ask the registry nothing, and return what the last such pull returned.
            verify: Whether to compare the checksums of what the cache has, not just sizes and times. What is damaged
                is downloaded again.
            overwrite: Whether a folder `to` may have files. Those that the model does not have are deleted.
            progress: None shows a bar on a terminal and in a notebook; True, False, or a function that is called with
                the bytes that are done and the total.

        Raises:
            NotFound: There is no such model, or a pattern of `files` matches nothing.
            InvalidArgument: `to` is inside the cache, or `overwrite` would delete what nobody means to delete.
            IntegrityError: The bytes are not the registered ones, or not safe to store. Nothing remains.
            NotCached: `offline` is set, and the cache does not have the model.
            NotADirectoryError: `to` is a file.
            FileExistsError: `to` is not empty, and `overwrite` is not set.
            OSError: The local disk: no space, no permission.

        >>> path = reg.pull("vad@production")
        >>> path.name, path.read_text()
        ('vad.onnx', '1')
        >>> reg.pull("vad:6.2.3", to="models").as_posix()
        'models/next.onnx'
        >>> reg.pull("vad@production", offline=True) == path
        True
        """
        if to is not None:
            runtime.run_blocking(refuse_inside, self.cache.directory, to)
        precisions = tuple(_arguments.texts(precision, "precision"))
        questions: list[Question] = []
        resolutions = Resolutions(self.cache.directory)
        if isinstance(model, Model):
            found = Resolution.of(model)
        else:
            question = Question(
                url=self._connection.options.endpoint.url,
                reference=_arguments.text(model, "model", advice="Pass a Model or a reference."),
                precisions=precisions,
                at=at,
            )
            questions.append(question)
            found = self._resolved(question, resolutions, offline=offline)
        with Progress(progress, description=found.label, total=found.artifact.size_bytes) as bar:
            path = self._pulled(found, bar, to, files, offline=offline, verify=verify, overwrite=overwrite)
        if not offline:
            for question in questions:
                runtime.run_blocking(resolutions.remember, question, found)
        return path

    def open(
        self,
        model: Model | str,
        *,
        file: str | None = None,
        precision: str | Sequence[str] = (),
        at: datetime | None = None,
    ) -> runtime.BinaryFile:
        """Open an artifact, or a file inside it, for reading. Only what is read is downloaded.

        Everything is read from the model that the reference names now. Close the file, or use it as a context manager.
        What is read from the beginning to the end is verified at the end.

        Args:
            model: A model or a reference.
            file: Path inside the artifact, exactly as `files` shows it. Default: the artifact itself; of a folder, its
                ZIP.
            precision: Only a model with exactly these precisions, as of `model`.
            at: The alias as it was then, as of `model`.

        Raises:
            NotFound: There is no such model, or no such file in it.
            PreconditionFailed: The artifact has no files that the registry can read.
            IntegrityError: While reading: the bytes are not the registered ones.

        >>> folder = reg.push("detector", name="detector", version="1", progress=False)
        >>> with reg.open("detector:1", file="labels.txt") as labels:
        ...     text = labels.read()
        >>> text.decode().split()
        ['cat']
        """
        found = model if isinstance(model, Model) else self.model(model, precision=precision, at=at)
        if file is None:
            return runtime.opened(open_artifact(self._connection, found))
        return runtime.opened(open_file(self._connection, found, file))

    def files(self, model: Model | str) -> Listing[ArtifactFile]:
        """Return the files inside an artifact, in its order. Folders are left out.

        Args:
            model: A model or a reference.

        Raises:
            NotFound: At the first iteration: there is no such model.
            PreconditionFailed: At the first iteration: the artifact has no files that the registry can list.
        """

        def find_model() -> str:
            return self._model_id(model)

        return artifact_files(self._connection, find_model)

    def verify(self, model: Model | str, *, progress: ProgressOption = None) -> Verification:
        """Let the registry read the stored bytes of a model again, and return what it found.

        Damage is a result, not an error: see `intact`.

        Args:
            model: A model or a reference.
            progress: As of `pull`.

        Raises:
            NotFound: There is no such model.
        """
        found = model if isinstance(model, Model) else self.model(model)
        request = artifact_service_pb2.VerifyArtifactRequest(model_id=found.id)
        connection, retries, refused = self._connection, Retries(None), None
        with Progress(progress, description=found.reference, total=found.artifact.size_bytes) as bar:
            while True:
                token = connection.token()
                try:
                    with connection.responses(methods.VERIFY_ARTIFACT, request) as stream:
                        for message in stream:
                            if message.HasField("result"):
                                return convert.verification(message.result)
                            # After an error, the stream ends with its status.
                            if message.HasField("progress"):
                                bar.update(message.progress.verified_bytes)
                    failure = _UNFINISHED
                except (runtime.RpcError, runtime.StalledError) as error:
                    failure = failure_of_stream(error)
                    if connection.may_sign_in_again(failure, token, refused):
                        refused = token
                        continue
                connection.pause_or_raise(failure, retries, methods.VERIFY_ARTIFACT)

    def _pulled(
        self,
        found: Resolution,
        bar: Progress,
        to: str | os.PathLike[str] | None,
        files: str | Sequence[str] | None,
        *,
        offline: bool,
        verify: bool,
        overwrite: bool,
    ) -> Path:
        connection, cache, folder = self._connection, self.cache, None if to is None else Path(to)
        if files is not None:
            selection = SelectionDownload(
                connection, cache, found, bar, patterns=Patterns(files), offline=offline, deep=verify
            )
            return selection.into_cache() if folder is None else selection.into(folder)
        if found.artifact.kind == "folder":
            whole = FolderDownload(connection, cache, found, bar, offline=offline, deep=verify)
            return whole.into_cache() if folder is None else whole.into(folder, overwrite=overwrite)
        file = FileDownload(connection, cache, found, bar, offline=offline, deep=verify)
        return file.into_cache() if folder is None else file.into(folder)

    def _resolved(self, question: Question, resolutions: Resolutions, *, offline: bool) -> Resolution:
        if not offline:
            return Resolution.of(self.model(question.reference, precision=question.precisions, at=question.at))
        found = runtime.run_blocking(resolutions.find, question)
        if found is None:
            raise NotCached(
                f"{question.reference} was not pulled from {question.url} before, so offline=True does not know what "
                "it means. Pull it once with the registry."
            )
        return found
