"""Recognizes formats whose inputs and outputs are not read."""

import re
from collections.abc import Collection, Iterator

from registry_service.signatures import limits
from registry_service.signatures.builder import Siblings, SignatureBuilder, tensor
from registry_service.signatures.file_reader import Budget, Reader, UnknownFormatError

_HDF5 = b"\x89HDF\r\n\x1a\n"
_SMALLEST_USER_BLOCK = 512
"""Smallest user block of HDF5: its magic number may follow 512 bytes of any content, or 1024, 2048 and so on."""
_TAR_MAGIC = 257, b"ustar"
"""Offset and magic number of tar. A tar whose first member is HDF5 looks like HDF5 with a user block."""
_KERAS_BYTES = 64 * 1024
"""First bytes of an HDF5 file that contain the attributes of its root, which identify Keras."""
_NUMPY = b"\x93NUMPY"
_NUMPY_HEADER = re.compile(rb"'descr':\s*'([^']{1,20})'.*'shape':\s*\(([\d,\s]{0,400})\)", re.DOTALL)
_NUMPY_TYPE = rb"'[<>|=]?[?A-Za-z]\d{0,9}(?:\[\w{1,20}\])?'"
_NUMPY_FIELD = rb"\(\s*'[^'\\]*'\s*,\s*" + _NUMPY_TYPE + rb"\s*(?:,\s*\([\d,\s]*\)\s*)?\)\s*(?:,\s*)?"
_NUMPY_KNOWN_HEADER = re.compile(
    rb"\{\s*'descr'\s*:\s*(" + _NUMPY_TYPE + rb"|\[\s*(?:" + _NUMPY_FIELD + rb")*\])\s*,"
    rb"\s*'fortran_order'\s*:\s*(?:True|False)\s*,\s*'shape'\s*:\s*\([\dL,\s]*\)\s*,?\s*\}\s*"
)
"""Headers with certain types: one type, or fields of one type each. NumPy evaluates others as Python literals."""
_NUMPY_OBJECTS = re.compile(rb"(?:^|,\s*)'[<>|=]?O\d*'")
_NUMPY_KINDS = {"f": "float", "i": "int", "u": "uint", "c": "complex"}
_PICKLE_OPERATIONS = frozenset(b"}])(cXCKMJINUTGVq\x88\x89\x8a\x8c\x8e\x8f\x94\x95")
"""Operations that can begin a pickle of protocol 2 or newer."""
_PICKLED_NAMES = (".pkl", ".pickle", ".joblib")
_TORCH_BEFORE_ZIP = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
"""The magic number, as a pickle after its protocol, that torch.save wrote before it wrote ZIPs."""
_ZIP = b"PK\x03\x04"
_IS_PICKLE = "The file contains a pickle. Loading a pickle can run code: load only files that you trust."


def recognized(head: bytes, file_name: str) -> str | None:
    """Return the format of a file by its first HEAD_BYTES, or None if it is not recognized here.

    A file named as a pickle counts as one whatever it contains, as loading it would run code.
    """
    if _is_hdf5(head):
        return "hdf5"
    if head.startswith(_NUMPY):
        return "numpy"
    if len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5 and head[2] in _PICKLE_OPERATIONS:
        return "pytorch" if head.startswith(_TORCH_BEFORE_ZIP, 2) else "pickle"
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
    """Yield the sizes that a user block of HDF5 can have in a file of this size, from 0."""
    block = 0
    while block < size:
        yield block
        block = max(2 * block, _SMALLEST_USER_BLOCK)


def _inner_zip(head: bytes, file_name: str) -> str | None:
    """Return the format of a ZIP by its first bytes, which contain the name of its first member."""
    first = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    if re.fullmatch(rb"[^/]+/(data\.pkl|version|byteorder|\.format_version)", first):
        return "pytorch"
    if file_name.endswith(".keras"):
        return "keras"
    return "numpy" if first.endswith(b".npy") else None


def container_format(names: Collection[str]) -> str | None:
    """Return the format of a ZIP that is a model itself, by the names of its members, or None."""
    pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) == 1:
        folder = pickles[0].removesuffix("data.pkl")
        is_script = f"{folder}constants.pkl" in names or any(name.startswith(f"{folder}code/") for name in names)
        return "torchscript" if is_script else "pytorch"
    if {"config.json", "metadata.json", "model.weights.h5"} <= set(names):
        return "keras"
    return "numpy" if names and all(name.endswith(".npy") for name in names) else None


def read_recognized(reader: Reader, _budget: Budget, builder: SignatureBuilder, _siblings: Siblings) -> None:
    """Add what the first bytes of a recognized file show.

    Raises:
        UnknownFormatError: The file is named as HDF5 and has no magic number of HDF5.
    """
    if builder.format == "numpy":
        _describe_array(reader, builder)
    if builder.format == "hdf5":
        _skip_user_block(reader)
        beginning = reader.peek(_KERAS_BYTES)
        if b"keras_version" in beginning or b"layer_names" in beginning:
            builder.format = "keras"
    describe(builder)


def _skip_user_block(reader: Reader) -> None:
    """Move to the magic number of HDF5. Raises UnknownFormatError if there is none."""
    for block in _user_blocks(min(reader.size, limits.USER_BLOCK_BYTES + 1)):
        reader.skip(block - reader.position)
        if reader.peek(len(_HDF5)) == _HDF5:
            return
    raise UnknownFormatError("The file is not HDF5.")


def array_holds_objects(head: bytes) -> bool | None:
    """Return whether a NumPy array contains pickled objects, by its first HEAD_BYTES; None if uncertain.

    False for a file that is not an array, as NumPy does not unpickle it.
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


def describe(builder: SignatureBuilder) -> None:
    """Add the problems that every file of the format has."""
    if builder.format in {"pickle", "pytorch"}:
        builder.add_problem(_IS_PICKLE)


def _describe_array(reader: Reader, builder: SignatureBuilder) -> None:
    """Add the array of a NumPy file."""
    head = reader.peek(limits.HEAD_BYTES)
    if head.startswith(_ZIP):
        builder.add_problem("The arrays may contain pickled objects, which can run code when loaded.")
        return
    holds_objects = array_holds_objects(head)
    if holds_objects:
        builder.add_problem(_IS_PICKLE)
    elif holds_objects is None:
        builder.add_problem("The array may contain pickled objects, which can run code when loaded.")
    found = _NUMPY_HEADER.search(head)
    if found is None:
        return
    kind = found[1].decode(errors="replace").lstrip("<>|=")
    shape = [int(size) for size in found[2].split(b",") if 0 < len(size.strip()) < 19]
    bits = 8 * int(kind[1:]) if kind[1:].isdecimal() and len(kind) < 4 else 0
    name = f"{_NUMPY_KINDS[kind[0]]}{bits}" if bits and kind[0] in _NUMPY_KINDS else kind
    # The array may be data beside a model, so its type does not count as a precision.
    builder.add_weight(name, 0)
    builder.weights.append(tensor("", name, shape))
