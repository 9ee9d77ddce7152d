"""What a reader finds, kept in bounds, until it becomes a signature."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Protocol

from registry_service.domain.signature import Signature, Tensor
from registry_service.signatures import limits
from registry_service.signatures.file_reader import FormatError


class Siblings(Protocol):
    """The files beside the one that is read, by paths relative to its folder."""

    def size(self, path: str) -> int | None:
        """Returns the size of a file in bytes; None where there is none."""

    def read(self, path: str) -> bytes | None:
        """Returns the content of a file; None where there is none, or none of up to CONFIGURATION_BYTES."""


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
# Wider integers are shapes, axes and indices, whatever the precision of the weights.
_NO_PRECISIONS = frozenset(
    f"{sign}{bits}" for sign in ("i", "u", "int", "uint") for bits in (16, 32, 64)
) | {"bool", "boolean", "string", "undefined", ""}  # fmt: skip


def clean(text: str, length: int = limits.TEXT_LENGTH) -> str:
    """Returns a text that can be stored: cut, without NUL and lone surrogates."""
    if len(text) > length:
        text = text[: length - 1] + "…"
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def tensor(name: str, element_type: str, shape: Sequence[int | str] | None) -> Tensor:
    """Makes a tensor of what a file says (`FormatError` where it has too many dimensions)."""
    if shape is None:
        return Tensor(name=clean(name), element_type=clean(element_type), shape=None)
    if len(shape) > limits.DIMENSIONS:
        raise FormatError(f"It has a tensor of more than {limits.DIMENSIONS} dimensions.")
    return Tensor(
        name=clean(name),
        element_type=clean(element_type),
        shape=tuple(clean(size) if isinstance(size, str) else size for size in shape),
    )


class Findings:
    """A signature in the making. Readers fill it as they go, so that what they found before an error is kept."""

    def __init__(self, format: str, file_name: str) -> None:  # noqa: A002 - the signature's name for it
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
        """Counts a weight that takes so many bits."""
        self.weight_count += 1
        name = clean(element_type.lower())
        if name in _NO_PRECISIONS or bits <= 0:
            return
        precision = _PRECISIONS.get(name, name)
        if precision in self._bits or len(self._bits) < limits.ENTRIES:
            self._bits[precision] += bits

    def add_packed_weight(self) -> None:
        """Counts a weight of an unknown precision, which leaves that of the model unknown."""
        self.weight_count += 1
        self._has_packed_weights = True

    def add_opset(self, domain: str, version: int) -> None:
        """Adds an operator set, or says that there are too many."""
        if len(self._opsets) < limits.ENTRIES:
            self._opsets[clean(domain)] = version
        else:
            self.add_problem(f"Only the first {limits.ENTRIES} of its operator sets are kept.")

    def add_metadata(self, name: str, text: str) -> None:
        """Adds what the file says about itself, or says that there is too much; what came first stays."""
        if len(self._metadata) < limits.ENTRIES:
            self._metadata.setdefault(clean(name), clean(text))
        else:
            self.add_problem(f"Only the first {limits.ENTRIES} entries of its metadata are kept.")

    def add_part_of(self, parts: int) -> None:
        """Says that the file is one of several that make a model."""
        self.add_problem(f"It is one of {parts} parts of a model; only this part was read.")

    def add_problem(self, text: str) -> None:
        """Adds what is wrong, once; instead of the last that is kept, that there is more."""
        is_last = len(self._problems) >= limits.PROBLEMS - 1
        self._problems["More is wrong with it than is told here." if is_last else clean(text)] = None

    def signature(self) -> Signature:
        """Returns what was found, or as much as is kept, and says so."""
        for name in ("inputs", "outputs"):
            if len(getattr(self, name)) > limits.TENSORS:
                self.add_problem(f"Only the first {limits.TENSORS:,} of its {name} are kept.")
        if self._has_packed_weights and self._bits:
            self._bits.clear()
            self.add_problem(
                "Its precision is unknown: weights are packed into wider integers, of how many bits each is not told."
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
            problem = (
                f"Its {' and '.join(names)} are not kept: they would take over {limits.SIGNATURE_BYTES >> 10} KiB."
            )
            signature = replace(signature, **dict.fromkeys(names, empty), problems=(*signature.problems, problem))  # type: ignore[arg-type]
    return signature


def _size(signature: Signature) -> int:
    return len(json.dumps(asdict(signature), ensure_ascii=False).encode())
