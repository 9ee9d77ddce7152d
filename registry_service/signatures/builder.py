"""Collects what a reader finds, within limits, and builds a signature of it."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Protocol

from registry_service.domain.signature import Signature, Tensor
from registry_service.signatures import limits
from registry_service.signatures.file_reader import FormatError


class Siblings(Protocol):
    """The files beside the model file, by paths relative to its folder."""

    def size(self, path: str) -> int | None:
        """Return the size of a file in bytes, or None if it does not exist."""

    def read(self, path: str) -> bytes | None:
        """Return the content of a file, or None if it does not exist or is larger than CONFIGURATION_BYTES."""


_PRECISIONS: Mapping[str, str] = {
    "f64": "fp64",
    "double": "fp64",
    "f32": "fp32",
    "float": "fp32",
    "float32": "fp32",
    "float64": "fp64",
    "f16": "fp16",
    "float16": "fp16",
    "bf16": "bf16",
    "bfloat16": "bf16",
    "i8": "int8",
    "u8": "int8",
    "int8": "int8",
    "uint8": "int8",
    "i4": "int4",
    "u4": "int4",
    "nf4": "int4",
    "int4": "int4",
    "uint4": "int4",
}
# Wider integers are shapes, axes and indices. They say nothing about the precision of the weights.
_NO_PRECISIONS = frozenset(
    f"{sign}{bits}" for sign in ("i", "u", "int", "uint") for bits in (16, 32, 64)
) | {"bool", "boolean", "string", "undefined", ""}  # fmt: skip


def clean(text: str, length: int = limits.TEXT_LENGTH) -> str:
    """Return a text that Postgres can store: cut to a length, without NUL and lone surrogates."""
    if len(text) > length:
        text = text[: length - 1] + "…"
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def tensor(name: str, element_type: str, shape: Sequence[int | str] | None) -> Tensor:
    """Return a tensor with cleaned texts. Raises FormatError if it has too many dimensions."""
    if shape is None:
        return Tensor(name=clean(name), element_type=clean(element_type), shape=None)
    if len(shape) > limits.DIMENSIONS:
        raise FormatError(f"A tensor has more than {limits.DIMENSIONS} dimensions.")
    return Tensor(
        name=clean(name),
        element_type=clean(element_type),
        shape=tuple(clean(size) if isinstance(size, str) else size for size in shape),
    )


class SignatureBuilder:
    """A signature under construction. Readers add to it while they read, so an error keeps what precedes it."""

    def __init__(self, format: str, file_name: str) -> None:  # noqa: A002 - named as in Signature
        self.format = format
        self.file_name = file_name
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.weights: list[Tensor] = []
        self.weight_count = 0
        self.producer = ""
        self._bits: Counter[str] = Counter()
        self._has_packed_weights = False
        self._opsets: dict[str, int] = {}
        self._metadata: dict[str, str] = {}
        self._problems: dict[str, None] = {}

    def add_weight(self, element_type: str, bits: int) -> None:
        """Count a weight, with its size in bits."""
        self.weight_count += 1
        name = clean(element_type.lower())
        if name in _NO_PRECISIONS or bits <= 0:
            return
        precision = _PRECISIONS.get(name, name)
        if precision in self._bits or len(self._bits) < limits.ENTRIES:
            self._bits[precision] += bits

    def add_packed_weight(self) -> None:
        """Count a weight of unknown precision. The precision of the model is then unknown too."""
        self.weight_count += 1
        self._has_packed_weights = True

    def add_opset(self, domain: str, version: int) -> None:
        """Add an operator set, or a problem if there are too many."""
        if len(self._opsets) < limits.ENTRIES:
            self._opsets[clean(domain)] = version
        else:
            self.add_problem(f"Only the first {limits.ENTRIES} operator sets are kept.")

    def add_metadata(self, name: str, text: str) -> None:
        """Add an entry of the file's metadata, or a problem if there are too many. The first entry of a name stays."""
        if len(self._metadata) < limits.ENTRIES:
            self._metadata.setdefault(clean(name), clean(text))
        else:
            self.add_problem(f"Only the first {limits.ENTRIES} metadata entries are kept.")

    def add_part_of(self, parts: int) -> None:
        """Add the problem that the file is one of several parts of a model."""
        self.add_problem(f"The file is one of {parts} parts of a model; only this part was read.")

    def add_problem(self, text: str) -> None:
        """Add a problem once. The last that fits says that there are more."""
        is_last = len(self._problems) >= limits.PROBLEMS - 1
        self._problems["There are more problems than listed here." if is_last else clean(text)] = None

    def build(self) -> Signature:
        """Return the signature within the limits, with a problem for each limit that cut it."""
        for name in ("inputs", "outputs"):
            if len(getattr(self, name)) > limits.TENSORS:
                self.add_problem(f"Only the first {limits.TENSORS:,} {name} are kept.")
        if self._has_packed_weights and self._bits:
            self._bits.clear()
            self.add_problem(
                "The precision is unknown: weights are packed into wider integers without a declared number of bits."
            )
        signature = Signature(
            format=self.format,
            file_name=clean(self.file_name),
            inputs=tuple(self.inputs[: limits.TENSORS]),
            outputs=tuple(self.outputs[: limits.TENSORS]),
            weights=tuple(self.weights[: limits.TENSORS]),
            weight_count=self.weight_count,
            precision=tuple(name for name, _ in self._bits.most_common()),
            producer=clean(self.producer),
            opsets=self._opsets,
            metadata=self._metadata,
            problems=tuple(self._problems),
        )
        return _cut(signature)


def _cut(signature: Signature) -> Signature:
    """Return the signature within SIGNATURE_BYTES: without its last weights first, then without other fields."""
    while signature.weights and _size(signature) > limits.SIGNATURE_BYTES:
        signature = replace(signature, weights=signature.weights[: len(signature.weights) // 2])
    for names, empty in ((("metadata",), {}), (("inputs", "outputs"), ()), (("opsets",), {})):
        if _size(signature) <= limits.SIGNATURE_BYTES:
            break
        if any(getattr(signature, name) for name in names):
            limit = f"{limits.SIGNATURE_BYTES >> 10} KiB"
            problem = f"The {' and '.join(names)} are not kept: the signature would exceed {limit}."
            signature = replace(signature, **dict.fromkeys(names, empty), problems=(*signature.problems, problem))  # type: ignore[arg-type]
    return signature


def _size(signature: Signature) -> int:
    return len(json.dumps(asdict(signature), ensure_ascii=False).encode())
