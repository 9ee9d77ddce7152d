"""Selects the reader of a model file by its content and name."""

import logging
import re
from collections.abc import Callable, Collection, Mapping

from registry_service.domain.signature import Signature
from registry_service.signatures.builder import Siblings, SignatureBuilder
from registry_service.signatures.file_reader import Budget, FormatError, Reader, UnknownFormatError
from registry_service.signatures.gguf import is_gguf, read_gguf
from registry_service.signatures.onnx import is_onnx, read_onnx
from registry_service.signatures.openvino import is_openvino, read_openvino
from registry_service.signatures.recognition import container_format, describe, read_recognized, recognized
from registry_service.signatures.safetensors import is_safetensors, read_safetensors
from registry_service.signatures.tflite import is_tflite, read_tflite

_PART = re.compile(r"-(\d{5})-of-(\d{5})(?=\.\w+$)")
"""Numbers in the names of files that hold the parts of one model."""

logger = logging.getLogger(__name__)

_READERS: Mapping[str, Callable[[Reader, Budget, SignatureBuilder, Siblings], None]] = {
    "openvino": read_openvino,
    "onnx": read_onnx,
    "safetensors": read_safetensors,
    "gguf": read_gguf,
    "tflite": read_tflite,
}
"""Readers of signatures. Other formats are only recognized."""


def format_by_content(head: bytes, size: int, file_name: str) -> str | None:
    """Return the format of a file by its first HEAD_BYTES, or None if it is unknown."""
    if is_openvino(head):
        return "openvino"
    if is_safetensors(head, size):
        return "safetensors"
    if is_gguf(head):
        return "gguf"
    if is_tflite(head):
        return "tflite"
    return recognized(head, file_name) or ("onnx" if is_onnx(head) else None)


def format_by_name(file_name: str) -> str | None:
    """Return the format that a file name implies, or None. `.xml` implies none, as XML can be anything."""
    name = file_name.lower()
    if name.endswith((".h5", ".hdf5")):
        return "hdf5"
    return next((known for known in ("onnx", "safetensors", "gguf", "tflite") if name.endswith(f".{known}")), None)


def are_parts_of_one(file_name: str, other: str) -> bool:
    """Return whether two file names are of parts of one model."""
    return _PART.search(file_name) is not None and _PART.sub("", file_name) == _PART.sub("", other)


def read_model(
    reader: Reader,
    budget: Budget,
    *,
    file_name: str,
    kind: str | None,
    siblings: Siblings,
) -> Signature | None:
    """Read the signature of a file. Never raises for any content.

    Args:
        reader: The file.
        budget: What reading may cost.
        file_name: Name of the file.
        kind: Its format by content; None takes the format that its name implies.
        siblings: The files beside it.

    Returns:
        The signature, with everything wrong in its problems; None if the file has no known format.
    """
    kind = kind or format_by_name(file_name)
    if kind is None:
        return None
    builder = SignatureBuilder(kind, file_name)
    part = _PART.search(file_name)
    if part is not None and int(part[2]) > 1:
        builder.add_part_of(int(part[2]))
    try:
        _READERS.get(kind, read_recognized)(reader, budget, builder, siblings)
    except UnknownFormatError as error:
        if format_by_name(file_name) != kind:
            return None
        builder.add_problem(str(error))
    except FormatError as error:
        builder.add_problem(str(error))
    except Exception:
        logger.warning("reading %r as %s failed", file_name, kind, exc_info=True)
        builder.add_problem("The file could not be read completely.")
    return builder.build()


def read_container(names: Collection[str]) -> Signature | None:
    """Return the signature of a ZIP that is a model itself, by its members' names; None if it is not one."""
    kind = container_format(names)
    if kind is None:
        return None
    builder = SignatureBuilder(kind, "")
    describe(builder)
    return builder.build()
