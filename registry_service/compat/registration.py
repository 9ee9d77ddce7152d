"""POST /models: a form that is stored while it arrives."""

from collections.abc import Iterator

from registry_service.compat.forms import RegistrationForm, read_text, urlencoded_texts
from registry_service.compat.multipart import MultipartReader


def registration_parts(
    form: RegistrationForm, content_type: str, chunks: Iterator[bytes]
) -> Iterator[Iterator[bytes] | None]:
    """Read the body of a registration into a form, for `ModelService.register_in_parts`.

    Args:
        form: Receives the texts and the header of the file.
        content_type: The media type of the body.
        chunks: The body.

    Yields:
        The bytes of each file, and None before each text. A body that is not a form has no parts.

    Raises:
        RestError: The body is malformed or too large.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        reader = MultipartReader(chunks, content_type)
        for part in reader.parts():
            if part.name == "file" and part.file_name is not None:
                form.file = part
                yield reader.data()
            else:
                yield None
                read_text(reader, part, form.texts)
    elif media_type == "application/x-www-form-urlencoded":
        form.texts = urlencoded_texts(chunks)
