"""Which reader a file needs, and its call."""

import logging
import re
from collections.abc import Callable, Collection, Mapping

from registry_service.domain.signature import Signature
from registry_service.signatures.builder import Findings, Siblings
from registry_service.signatures.file_reader import Budget, FormatError, Reader, UnknownFormatError
from registry_service.signatures.gguf import is_gguf, read_gguf
from registry_service.signatures.onnx import is_onnx, read_onnx
from registry_service.signatures.openvino import is_openvino, read_openvino
from registry_service.signatures.recognition import container_format, describe, read_recognized, recognized
from registry_service.signatures.safetensors import is_safetensors, read_safetensors
from registry_service.signatures.tflite import is_tflite, read_tflite

_PART = re.compile(r"-(\d{5})-of-(\d{5})(?=\.\w+$)")
"""How the parts of a model are numbered that several files hold."""

logger = logging.getLogger(__name__)

_READERS: Mapping[str, Callable[[Reader, Budget, Findings, Siblings], None]] = {
    "openvino": read_openvino,
    "onnx": read_onnx,
    "safetensors": read_safetensors,
    "gguf": read_gguf,
    "tflite": read_tflite,
}
"""Those formats that are read; of others only the name is told."""


def format_by_content(head: bytes, size: int, file_name: str) -> str | None:
    """Tells the format of a file from its first HEAD_BYTES; None where it is none that we know."""
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
    """Tells the format that a name promises. XML may be anything, so `.xml` promises nothing."""
    name = file_name.lower()
    if name.endswith((".h5", ".hdf5")):
        return "hdf5"
    return next((known for known in ("onnx", "safetensors", "gguf", "tflite") if name.endswith(f".{known}")), None)


def are_parts_of_one(file_name: str, other: str) -> bool:
    """Tells whether two files are parts of one model, by their names."""
    return _PART.search(file_name) is not None and _PART.sub("", file_name) == _PART.sub("", other)


def read_model(
    reader: Reader,
    budget: Budget,
    *,
    file_name: str,
    kind: str | None,
    siblings: Siblings,
) -> Signature | None:
    """Reads a file of a known format, or (None) of the format that its name promises.

    `file_name` is that of the file, `siblings` are the files
    beside it. Returns None where the file is nothing that we read; what is wrong
    with it otherwise is in the signature's problems. Raises nothing of its own.
    """
    kind = kind or format_by_name(file_name)
    if kind is None:
        return None
    findings = Findings(kind, file_name)
    part = _PART.search(file_name)
    if part is not None and int(part[2]) > 1:
        findings.add_part_of(int(part[2]))
    try:
        _READERS.get(kind, read_recognized)(reader, budget, findings, siblings)
    except UnknownFormatError as error:
        if format_by_name(file_name) != kind:
            return None
        findings.add_problem(str(error))
    except FormatError as error:
        findings.add_problem(str(error))
    except Exception:
        logger.warning("Reading %r as %s failed", file_name, kind, exc_info=True)
        findings.add_problem("It could not be read to its end.")
    return findings.signature()


def read_container(names: Collection[str]) -> Signature | None:
    """Returns what is known of a ZIP that is a model as a whole, by its members' names; None where it is none."""
    kind = container_format(names)
    if kind is None:
        return None
    findings = Findings(kind, "")
    describe(findings)
    return findings.signature()
