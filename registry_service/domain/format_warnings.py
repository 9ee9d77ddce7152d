"""Whether a model is what its metadata says. Computed when it is shown, as its metadata can change."""

import re
from collections.abc import Mapping, Sequence

from registry_service.domain.models import PRECISIONS, Model
from registry_service.domain.signature import MORE_MODELS

_SEPARATORS = re.compile(r"[^a-z0-9]+")
_SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "openvino": ("openvino", "openvinoir", "ir"),
    "onnx": ("onnx",),
    "safetensors": ("safetensors",),
    "gguf": ("gguf", "ggml", "llamacpp"),
    "tflite": ("tflite", "tensorflowlite", "litert", "tfl"),
    "torchscript": ("torchscript", "pytorchjit", "torchjit"),
    "keras": ("keras", "kerasv3", "tfkeras", "h5", "hdf5", "kerash5"),
    "hdf5": ("keras", "h5", "hdf5", "kerash5", "tfkeras"),
    "pickle": ("pickle", "pkl", "joblib", "picklejoblib"),
    "numpy": ("numpy", "npy", "npz"),
    "tensorflow": ("savedmodel", "tfsavedmodel", "tensorflowsavedmodel"),
    # What torch.save and TorchScript write looks alike where a ZIP is inside another.
    "pytorch": ("torchscript", "pytorchjit", "torchjit", "pickle", "pkl"),
}
"""What clients call a format that may have been found, without capitals and separators."""
_KNOWN_SPELLINGS = frozenset(spelling for spellings in _SPELLINGS.values() for spelling in spellings)
_NAMES: Mapping[str, str] = {
    "openvino": "OpenVINO IR",
    "onnx": "ONNX",
    "gguf": "GGUF",
    "tflite": "TensorFlow Lite",
    "torchscript": "TorchScript",
    "keras": "Keras",
    "hdf5": "HDF5",
    "pickle": "a pickle",
    "numpy": "NumPy arrays",
    "tensorflow": "a TensorFlow SavedModel",
    "pytorch": "PyTorch",
}
_SHOWN_FORMAT = 100
"""Most characters of a declared format that a warning shows."""
_WIDTHS: Mapping[str, int] = {
    "fp64": 5, "fp32": 4, "fp16": 3, "bf16": 3, "int8": 2, "fp8": 2, "int4": 1, "fp4": 1, "nf4": 1,
}  # fmt: skip
# The Intel-compatible API knows four precisions: its clients declare the one that is about as wide as the weights.
_DECLARED_AS = (
    (re.compile(r"fp64|complex.*|c64"), {"fp32", "fp64"}),
    (re.compile(r"bf16"), {"fp16"}),
    (re.compile(r"(fp?|float)8.*|int7"), {"int8", "fp8"}),
    (re.compile(r"f6.*|int[56]|q[56]_.*"), {"int8", "int4"}),
    (re.compile(r"(nf|fp?|float)4.*|u?(int)?[23]|i2|u1|i?q[123]_.*|tq[12]_.*"), {"int4", "fp4", "nf4"}),
)
_UNKNOWN_WIDTH = max(_WIDTHS.values())
_MIXED = "mixed"
"""Declares weights of more than one precision."""


def format_warnings(model: Model) -> tuple[str, ...]:
    """Returns what does not fit together, in words: format, precision, and the problems of the signature."""
    signature = model.signature or model.listed_signature
    if signature is None:
        return ()
    warnings = []
    declared = _SEPARATORS.sub("", (model.format or "").lower())
    if signature.format and declared in _KNOWN_SPELLINGS and declared not in _SPELLINGS.get(signature.format, ()):
        found = _NAMES.get(signature.format, signature.format)
        holder = signature.file_name if MORE_MODELS in signature.problems else "the artifact"
        warnings.append(f"The format is {(model.format or '')[:_SHOWN_FORMAT]!r}, but {holder} holds {found}.")
    if not _fits(model.precisions, signature.precision):
        warnings.append(
            f"The precisions are {', '.join(model.precisions)}, but the weights are {', '.join(signature.precision)}."
        )
    return (*warnings, *(f"{signature.file_name or model.artifact.file_name}: {text}" for text in signature.problems))


def _fits(declared: Sequence[str], found: Sequence[str]) -> bool:
    """Tells whether weights may be called so; also where it isn't known what to call some of them."""
    accepted = [_accepted(precision) for precision in found]
    if not all(accepted):
        return True
    # Quantized models keep some weights as they were: it may be called after the
    # precision of most bytes as well as after the narrowest.
    narrowest = min(accepted, key=lambda names: min(_WIDTHS.get(name, _UNKNOWN_WIDTH) for name in names), default=set())
    if not found or (_MIXED in declared and len(found) > 1):
        return True
    return not (accepted[0] | narrowest).isdisjoint(declared)


def _accepted(precision: str) -> set[str]:
    if precision in PRECISIONS:
        return {precision}
    names: set[str] = next((names for pattern, names in _DECLARED_AS if pattern.fullmatch(precision)), set())
    return names and names | {precision}
