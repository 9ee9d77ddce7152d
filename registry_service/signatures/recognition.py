"""Recognizes files whose inputs and outputs are not read, so that they are at least called what they are."""

import re
from collections.abc import Collection, Iterator

from registry_service.signatures import limits
from registry_service.signatures.builder import Findings, Siblings, tensor
from registry_service.signatures.file_reader import Budget, Reader, UnknownFormatError

_HDF5 = b"\x89HDF\r\n\x1a\n"
_SMALLEST_USER_BLOCK = 512
"""Of HDF5: bytes of any content may precede the signature, 512 or a power of two above that."""
_TAR_MAGIC = 257, b"ustar"
"""The magic of tar and where it is. The header of its first member looks like a user block of HDF5."""
_KERAS_BYTES = 64 * 1024
"""In so many bytes of an HDF5 file stand the attributes of its root, by which Keras's are known."""
_NUMPY = b"\x93NUMPY"
_NUMPY_HEADER = re.compile(rb"'descr':\s*'([^']{1,20})'.*'shape':\s*\(([\d,\s]{0,400})\)", re.DOTALL)
_NUMPY_TYPE = rb"'[<>|=]?[?A-Za-z]\d{0,9}(?:\[\w{1,20}\])?'"
_NUMPY_FIELD = rb"\(\s*'[^'\\]*'\s*,\s*" + _NUMPY_TYPE + rb"\s*(?:,\s*\([\d,\s]*\)\s*)?\)\s*(?:,\s*)?"
_NUMPY_KNOWN_HEADER = re.compile(
    rb"\{\s*'descr'\s*:\s*(" + _NUMPY_TYPE + rb"|\[\s*(?:" + _NUMPY_FIELD + rb")*\])\s*,"
    rb"\s*'fortran_order'\s*:\s*(?:True|False)\s*,\s*'shape'\s*:\s*\([\dL,\s]*\)\s*,?\s*\}\s*"
)
"""Headers whose types are certain: one type, or fields of one type each. NumPy evaluates others as Python literals."""
_NUMPY_OBJECTS = re.compile(rb"(?:^|,\s*)'[<>|=]?O\d*'")
_NUMPY_KINDS = {"f": "float", "i": "int", "u": "uint", "c": "complex"}
_PICKLE_OPERATIONS = frozenset(b"}])(cXCKMJINUTGVq\x88\x89\x8a\x8c\x8e\x8f\x94\x95")
"""Of protocol 2 or newer those that a pickle begins with."""
_PICKLED_NAMES = (".pkl", ".pickle", ".joblib")
_TORCH_LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
"""What torch.save wrote before it wrote ZIPs, behind the protocol: its magic number, as a pickle."""
_ZIP = b"PK\x03\x04"
_RUNS_CODE = "Loading it runs code that is in it, as it is a pickle: load it only from those whom you trust."


def recognized(head: bytes, file_name: str) -> str | None:
    """Returns the format of a file by its first HEAD_BYTES; None where it is none of those known here.

    What these do not show is told by the name where loading the file would run code.
    """
    if _is_hdf5(head):
        return "hdf5"
    if head.startswith(_NUMPY):
        return "numpy"
    if len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5 and head[2] in _PICKLE_OPERATIONS:
        return "pytorch" if head.startswith(_TORCH_LEGACY, 2) else "pickle"
    if head.startswith(_ZIP):
        return _inner_zip(head, file_name.lower())
    if file_name.lower().endswith("saved_model.pb") and head.startswith(b"\x08\x01\x12"):
        return "tensorflow"
    return "pickle" if head and file_name.lower().endswith(_PICKLED_NAMES) else None


def _is_hdf5(head: bytes) -> bool:
    at, tar = _TAR_MAGIC
    if head.startswith(tar, at):
        return head.startswith(_HDF5)
    return any(head.startswith(_HDF5, block) for block in _user_blocks(len(head)))


def _user_blocks(size: int) -> Iterator[int]:
    """Yield the sizes that a user block of HDF5 may have in a file of this size, none included."""
    block = 0
    while block < size:
        yield block
        block = max(2 * block, _SMALLEST_USER_BLOCK)


def _inner_zip(head: bytes, file_name: str) -> str | None:
    """Returns the format of a ZIP of which only the first bytes are known: those tell its first member."""
    first = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    if re.fullmatch(rb"[^/]+/(data\.pkl|version|byteorder|\.format_version)", first):
        return "pytorch"
    if file_name.endswith(".keras"):
        return "keras"
    return "numpy" if first.endswith(b".npy") else None


def container_format(names: Collection[str]) -> str | None:
    """Returns the format of a ZIP that is a model as a whole, by the names of its members."""
    pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) == 1:
        folder = pickles[0].removesuffix("data.pkl")
        is_script = f"{folder}constants.pkl" in names or any(name.startswith(f"{folder}code/") for name in names)
        return "torchscript" if is_script else "pytorch"
    if {"config.json", "metadata.json", "model.weights.h5"} <= set(names):
        return "keras"
    return "numpy" if names and all(name.endswith(".npy") for name in names) else None


def read_recognized(reader: Reader, _budget: Budget, findings: Findings, _siblings: Siblings) -> None:
    """Adds what little the first bytes of a recognized file tell.

    Raises:
        UnknownFormatError: It is called HDF5 and has no signature.
    """
    if findings.format == "numpy":
        _describe_array(reader, findings)
    if findings.format == "hdf5":
        _skip_user_block(reader)
        beginning = reader.peek(_KERAS_BYTES)
        if b"keras_version" in beginning or b"layer_names" in beginning:
            findings.format = "keras"
    describe(findings)


def _skip_user_block(reader: Reader) -> None:
    """Move on to the signature of HDF5 (`UnknownFormatError` where there is none)."""
    for block in _user_blocks(min(reader.size, limits.USER_BLOCK_BYTES + 1)):
        reader.skip(block - reader.position)
        if reader.peek(len(_HDF5)) == _HDF5:
            return
    raise UnknownFormatError("It is no HDF5.")


def array_holds_objects(head: bytes) -> bool | None:
    """Return whether an array of NumPy holds pickled objects, by its first HEAD_BYTES; None where that is uncertain.

    Of a file that is no array it is False: NumPy does not unpickle it.
    """
    if not head.startswith(_NUMPY):
        return False
    major = head[len(_NUMPY) : len(_NUMPY) + 1]
    start = len(_NUMPY) + (4 if major == b"\x01" else 6)
    end = start + int.from_bytes(head[len(_NUMPY) + 2 : start], "little")
    known = _NUMPY_KNOWN_HEADER.fullmatch(head[start:end])
    if known is None or major not in {b"\x01", b"\x02", b"\x03"} or end > len(head):
        return None
    return _NUMPY_OBJECTS.search(known[1]) is not None


def describe(findings: Findings) -> None:
    """Adds what is known of a format itself."""
    if findings.format in {"pickle", "pytorch"}:
        findings.add_problem(_RUNS_CODE)


def _describe_array(reader: Reader, findings: Findings) -> None:
    """Adds the array of a file of NumPy."""
    head = reader.peek(limits.HEAD_BYTES)
    if head.startswith(_ZIP):
        findings.add_problem(
            "Whether its arrays hold pickled objects, which run code when they are loaded, is unknown."
        )
        return
    holds_objects = array_holds_objects(head)
    if holds_objects:
        findings.add_problem(_RUNS_CODE)
    elif holds_objects is None:
        findings.add_problem("Whether it holds pickled objects, which run code when they are loaded, is unknown.")
    found = _NUMPY_HEADER.search(head)
    if found is None:
        return
    kind = found[1].decode(errors="replace").lstrip("<>|=")
    shape = [int(size) for size in found[2].split(b",") if 0 < len(size.strip()) < 19]
    bits = 8 * int(kind[1:]) if kind[1:].isdecimal() and len(kind) < 4 else 0
    name = f"{_NUMPY_KINDS[kind[0]]}{bits}" if bits and kind[0] in _NUMPY_KINDS else kind
    # An array may be anything beside a model, so that its type is no precision of that.
    findings.add_weight(name, 0)
    findings.weights.append(tensor("", name, shape))
