"""POST /models: a form that is stored as it arrives."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack

from registry_service.compat.answers import RestError
from registry_service.compat.forms import RegistrationForm, read_text, urlencoded_texts
from registry_service.compat.multipart import MultipartReader
from registry_service.domain.errors import AlreadyExistsError
from registry_service.domain.models import ArtifactSpec, Model
from registry_service.services.artifact_staging import RegisterModel, StagedArtifact

_PATIENCE_BYTES = 1024 * 1024
"""How much of a file is read while a clash could still turn out to be none."""


class Registration:
    """One registration.

    A request that must be refused is answered as early as its parts allow. What
    is wrong in itself, or an id that is taken, is known when the file begins. A
    clash of names may still be undone by a project or a precision that follows
    the file, but clients put texts first: once a file goes on for long, those
    that came are taken for all.
    """

    def __init__(self, register: RegisterModel, confirm: Callable[[], None]) -> None:
        self._register = register
        self._confirm = confirm
        self._form = RegistrationForm()
        self._refusal: RestError | None = None

    def run(self, content_type: str, chunks: Iterator[bytes]) -> Model:
        """Reads the body and returns the model.

        Raises:
            RestError: Something is wrong with the form.
            RegistryError: The domain refuses it.
        """
        media_type = content_type.partition(";")[0].strip().lower()
        if media_type == "multipart/form-data":
            return self._multipart(MultipartReader(chunks, content_type))
        if media_type == "application/x-www-form-urlencoded":
            self._form.texts = urlencoded_texts(chunks)
        # Without a file there is always something to refuse.
        self._register.checked(self._form.spec())
        raise AssertionError("a form without a file passed")

    def _multipart(self, reader: MultipartReader) -> Model:
        with ExitStack() as places:
            staged: StagedArtifact | None = None
            for part in reader.parts():
                if staged is not None:
                    staged.hold()
                if part.name != "file" or part.file_name is None:
                    read_text(reader, part, self._form.texts)
                    continue
                places.close()  # of several files the last counts
                staged = None
                self._form.file = part
                if self._is_refused():
                    continue
                clash = self._clash()
                staged = places.enter_context(self._register.stage())
                staged.write(_refused_when_long(reader.data(), clash), ArtifactSpec())
            spec = self._register.checked(self._form.spec())
            if staged is None:
                # Its bytes went by unstored; too late for a text that would mend it.
                raise self._refusal or AssertionError("a form without a file passed")
            return staged.commit(spec, self._confirm)

    def _is_refused(self) -> bool:
        """Tells whether the form is refused for sure, though its answer needs the parts that follow.

        Raises:
            RestError: The form is refused, and the answer is known.
        """
        try:
            self._form.spec(is_whole=False)
        except RestError as error:
            if self._form.is_settled:
                raise
            self._refusal = error
            return True
        return False

    def _clash(self) -> AlreadyExistsError | None:
        """Finds the model that this one, as known by now, clashes with.

        Raises:
            AlreadyExistsError: It does, whatever follows.
            InvalidArgumentError: A value is wrong.
        """
        if not self._form.is_settled:
            return None
        spec = self._register.checked(self._form.spec())
        try:
            self._register.check_absent(spec)
        except AlreadyExistsError as error:
            if error.model_id == spec.id or self._form.has_identity:
                raise
            return error
        return None


def _refused_when_long(pieces: Iterable[bytes], clash: AlreadyExistsError | None) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if clash is not None and size > _PATIENCE_BYTES:
            raise clash
        yield piece
