"""Whether a model is what its metadata says. Computed when it is shown, as its metadata can change."""

import re
from collections.abc import Mapping

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
_WIDTHS: Mapping[str, int] = {"fp32": 4, "fp16": 3, "int8": 2, "int4": 1}
# Whoever has weights of another kind can but declare the precision of the same width.
_DECLARED_AS = (
    (re.compile(r"fp64|complex.*|c64"), "fp32"),
    (re.compile(r"bf16"), "fp16"),
    (re.compile(r"(f|float)8.*"), "int8"),
    (re.compile(r"(f|float)4.*|u?(int)?2|i2|u1"), "int4"),
)


def warnings_of(model: Model) -> tuple[str, ...]:
    """Returns what does not fit together, in words: format, precision, and the problems of the schema."""
    schema = model.schema
    if schema is None:
        return ()
    warnings = []
    declared = _FORMATS.get(_SEPARATORS.sub("", (model.format or "").lower()))
    if declared is not None and declared != schema.format:
        found = _NAMES.get(schema.format, schema.format)
        warnings.append(f"The format is {model.format!r}, but the artifact holds {found}.")
    precisions = [_as_declared(name) for name in schema.precision]
    known = [name for name in precisions if name in _WIDTHS]
    if known:
        # Quantized models keep some weights as they were: it may be called after the
        # precision of most bytes as well as after the narrowest.
        narrowest = min(known, key=_WIDTHS.__getitem__)
        if known[0] not in model.precision and narrowest not in model.precision:
            warnings.append(
                f"The precision is {', '.join(model.precision)}, but the weights are {', '.join(schema.precision)}."
            )
    return (*warnings, *(f"{schema.file_name or model.artifact.file_name}: {text}" for text in schema.problems))


def _as_declared(precision: str) -> str:
    return next((declared for pattern, declared in _DECLARED_AS if pattern.fullmatch(precision)), precision)
