"""Whether a model is what its metadata says. Computed when it is shown, as its metadata can change."""

import re
from collections.abc import Mapping, Sequence

from registry_service.domain.models import Model

_SEPARATORS = re.compile(r"[^a-z0-9]+")
_FORMATS: Mapping[str, str] = {
    "openvino": "openvino",
    "openvinoir": "openvino",
    "ir": "openvino",
    "onnx": "onnx",
    "safetensors": "safetensors",
}
"""Formats that we can tell, by what clients call them, without capitals and separators."""
_NAMES: Mapping[str, str] = {"openvino": "OpenVINO IR", "onnx": "ONNX", "safetensors": "safetensors"}
_SHOWN_FORMAT = 100
"""Most characters of a declared format that a warning shows."""
_WIDTHS: Mapping[str, int] = {"fp32": 4, "fp16": 3, "int8": 2, "int4": 1}
# Whoever has weights of another kind can but declare a precision of about the same width.
_DECLARED_AS = (
    (re.compile(r"fp64|complex.*|c64"), {"fp32"}),
    (re.compile(r"bf16"), {"fp16"}),
    (re.compile(r"(f|float)8.*|int7"), {"int8"}),
    (re.compile(r"f6.*|int[56]"), {"int8", "int4"}),
    (re.compile(r"(f|float)4.*|u?(int)?[23]|i2|u1"), {"int4"}),
)


def warnings_of(model: Model) -> tuple[str, ...]:
    """Returns what does not fit together, in words: format, precision, and the problems of the schema."""
    schema = model.schema or model.listed_schema
    if schema is None:
        return ()
    warnings = []
    declared = _FORMATS.get(_SEPARATORS.sub("", (model.format or "").lower()))
    if declared is not None and schema.format and declared != schema.format:
        found = _NAMES.get(schema.format, schema.format)
        warnings.append(f"The format is {(model.format or '')[:_SHOWN_FORMAT]!r}, but the artifact holds {found}.")
    if not _fits(model.precision, schema.precision):
        warnings.append(
            f"The precision is {', '.join(model.precision)}, but the weights are {', '.join(schema.precision)}."
        )
    return (*warnings, *(f"{schema.file_name or model.artifact.file_name}: {text}" for text in schema.problems))


def _fits(declared: Sequence[str], found: Sequence[str]) -> bool:
    """Tells whether weights may be called so; also where it isn't known what to call some of them."""
    accepted = [_accepted(precision) for precision in found]
    if not all(accepted):
        return True
    # Quantized models keep some weights as they were: it may be called after the
    # precision of most bytes as well as after the narrowest.
    narrowest = min(accepted, key=lambda names: min(map(_WIDTHS.__getitem__, names)), default=set())
    return not found or not (accepted[0] | narrowest).isdisjoint(declared)


def _accepted(precision: str) -> set[str]:
    if precision in _WIDTHS:
        return {precision}
    return next((names for pattern, names in _DECLARED_AS if pattern.fullmatch(precision)), set())
