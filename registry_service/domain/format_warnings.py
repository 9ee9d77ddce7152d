"""Warnings about a model whose declared format or precision contradicts its file.

They are computed whenever a model is shown, as its metadata can change.
"""

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
    # Inside another ZIP, files of torch.save and of TorchScript cannot be told apart.
    "pytorch": ("torchscript", "pytorchjit", "torchjit", "pickle", "pkl"),
}
"""Names that clients use for each format that the readers find, in lower case without separators."""
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
# The Intel-compatible API has four precisions. Its clients declare the one nearest to the width of the weights.
_DECLARED_AS = (
    (re.compile(r"fp64|complex.*|c64"), {"fp32", "fp64"}),
    (re.compile(r"bf16"), {"fp16"}),
    (re.compile(r"(fp?|float)8.*|int7"), {"int8", "fp8"}),
    (re.compile(r"f6.*|int[56]|q[56]_.*"), {"int8", "int4"}),
    (re.compile(r"(nf|fp?|float)4.*|u?(int)?[23]|i2|u1|i?q[123]_.*|tq[12]_.*"), {"int4", "fp4", "nf4"}),
)
_UNKNOWN_WIDTH = max(_WIDTHS.values())
_MIXED = "mixed"
"""Declared for weights of more than one precision."""


def format_warnings(model: Model) -> tuple[str, ...]:
    """Return the warnings of a model as sentences: about its format, its precisions, and the problems of its file."""
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
    """Return whether declared precisions fit the found ones. Unknown precisions fit any."""
    accepted = [_accepted(precision) for precision in found]
    if not all(accepted):
        return True
    # A quantized model keeps some weights unquantized. So both the precision of the most bytes and the
    # narrowest one fit.
    narrowest = min(accepted, key=lambda names: min(_WIDTHS.get(name, _UNKNOWN_WIDTH) for name in names), default=set())
    if not found or (_MIXED in declared and len(found) > 1):
        return True
    return not (accepted[0] | narrowest).isdisjoint(declared)


def _accepted(precision: str) -> set[str]:
    if precision in PRECISIONS:
        return {precision}
    names: set[str] = next((names for pattern, names in _DECLARED_AS if pattern.fullmatch(precision)), set())
    return names and names | {precision}
