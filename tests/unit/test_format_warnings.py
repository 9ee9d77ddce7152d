"""Warnings about the declared format and precision of a model."""

from dataclasses import replace

import pytest

from registry_service.domain.format_warnings import format_warnings
from registry_service.domain.models import Artifact, Model, utc_now
from registry_service.domain.signature import MORE_MODELS, Signature

MODEL = Model(
    name="n",
    version="1",
    id="a-model-of-this-test",
    created_date="",
    last_updated_date="",
    create_time=utc_now(),
    update_time=utc_now(),
    artifact=Artifact(file_name="m.onnx", media_type="", size=1, sha256="0" * 64, file_url="", object_key=""),
)


def warnings_of_format(declared: str, found: str) -> tuple[str, ...]:
    return format_warnings(replace(MODEL, format=declared, signature=Signature(format=found)))


@pytest.mark.parametrize(
    ("declared", "found"),
    [
        ("TensorFlow Lite", "tflite"),
        ("tf-lite", "tflite"),
        ("LiteRT", "tflite"),
        ("TorchScript", "torchscript"),
        ("Torch Script", "pytorch"),
        ("PyTorch", "torchscript"),
        ("pytorch", "pickle"),
        ("Keras", "hdf5"),
        ("keras", "keras"),
        ("HDF5", "keras"),
        (".h5", "keras"),
        ("pickle", "pytorch"),
        ("scikit-learn", "pickle"),
        ("npz", "numpy"),
        ("GGUF", "gguf"),
        ("SavedModel", "tensorflow"),
        ("tensorflow", "keras"),
        ("openvino", ""),
    ],
)
def test_common_names_of_a_format_are_accepted(declared: str, found: str) -> None:
    assert warnings_of_format(declared, found) == ()


@pytest.mark.parametrize(
    ("declared", "found", "name"),
    [
        ("onnx", "pickle", "a pickle"),
        ("gguf", "safetensors", "safetensors"),
        ("openvino", "tflite", "TensorFlow Lite"),
        ("tflite", "onnx", "ONNX"),
        ("keras", "torchscript", "TorchScript"),
    ],
)
def test_one_format_is_not_taken_for_another(declared: str, found: str, name: str) -> None:
    assert warnings_of_format(declared, found) == (f"The format is {declared!r}, but the artifact holds {name}.",)


def test_of_several_models_the_one_that_was_read_is_named() -> None:
    signature = Signature(format="onnx", file_name="a/b.onnx", problems=(MORE_MODELS,))
    warning, _ = format_warnings(replace(MODEL, format="openvino", signature=signature))
    assert warning == "The format is 'openvino', but a/b.onnx holds ONNX."


def warnings(
    *,
    declared: tuple[str, ...] = ("fp32",),
    found: tuple[str, ...] = (),
    format: str | None = None,  # noqa: A002 - the model's name for it
    problems: tuple[str, ...] = (),
    file_name: str = "",
) -> tuple[str, ...]:
    signature = Signature(format="onnx", precision=found, problems=problems, file_name=file_name)
    return format_warnings(replace(MODEL, precisions=declared, format=format, signature=signature))


def test_a_model_without_a_signature_has_no_warnings() -> None:
    assert format_warnings(replace(MODEL, format="onnx")) == ()


@pytest.mark.parametrize(
    "name", ["onnx", "ONNX", " Onnx ", None, "", "pytorch", "tensorflow", "geti", "openvino, onnx"]
)
def test_a_format_that_fits_or_is_unknown_is_accepted(name: str | None) -> None:
    assert warnings(format=name) == ()


@pytest.mark.parametrize(
    "name", ["openvino", "OpenVINO", "OpenVINO IR", "openvino_ir", "IR", "safetensors", "SafeTensors"]
)
def test_another_known_format_gets_a_warning(name: str) -> None:
    assert warnings(format=name) == (f"The format is {name!r}, but the artifact holds ONNX.",)


@pytest.mark.parametrize(
    ("declared", "found"),
    [
        (("fp32",), ("fp32",)),
        (("fp32",), ()),
        (("fp32",), ("fp32", "int8")),
        (("int8",), ("fp32", "int8")),
        (("fp16", "int8"), ("int8", "fp16", "fp32")),
        (("fp16",), ("bf16",)),
        (("fp32",), ("fp64",)),
        (("int8",), ("f8_e4m3", "fp32")),
        (("int8",), ("float8e4m3fn",)),
        (("int4",), ("float4e2m1",)),
        (("int4",), ("fp16", "f4")),
        (("fp32",), ("something new",)),
        (("int4",), ("something new", "fp32")),
        (("int4",), ("fp16", "something new")),
        (("int4",), ("int3", "fp16")),
        (("int4",), ("int2", "fp16")),
        (("int8",), ("int6", "fp16")),
        (("int4",), ("q2_k", "fp32")),
        (("int4",), ("iq3_xxs", "fp32")),
        (("int8",), ("q6_k", "fp32")),
        (("int4",), ("q5_0", "fp32")),
        (("int4",), ("int5", "fp16")),
        (("bf16",), ("bf16",)),
        (("fp64",), ("fp64",)),
        (("fp8",), ("f8_e4m3", "fp32")),
        (("nf4",), ("nf4", "fp16")),
        (("int4",), ("nf4", "fp16")),
        (("q4_k",), ("q4_k", "fp32")),
        (("mixed",), ("fp16", "fp32")),
    ],
)
def test_a_precision_that_fits_is_accepted(declared: tuple[str, ...], found: tuple[str, ...]) -> None:
    assert warnings(declared=declared, found=found) == ()


@pytest.mark.parametrize(
    ("declared", "found"),
    [
        (("fp32",), ("int8", "fp32")),
        (("fp16",), ("fp32",)),
        (("fp32",), ("bf16",)),
        (("int8", "int4"), ("fp16", "fp32")),
        (("fp16",), ("fp32", "fp16", "int8")),
        (("fp16",), ("int4", "fp16")),
        (("fp32",), ("int6", "fp32")),
        (("bf16",), ("fp16",)),
        (("fp64",), ("fp32",)),
        (("fp8",), ("int8",)),
        (("mixed",), ("fp32",)),
        (("q4_k",), ("fp16",)),
    ],
)
def test_a_precision_that_does_not_fit_gets_a_warning(declared: tuple[str, ...], found: tuple[str, ...]) -> None:
    assert warnings(declared=declared, found=found) == (
        f"The precisions are {', '.join(declared)}, but the weights are {', '.join(found)}.",
    )


def test_problems_are_warnings_too_and_name_the_file() -> None:
    assert warnings(problems=("The file is truncated.",)) == ("m.onnx: The file is truncated.",)
    assert warnings(problems=("The file is truncated.",), file_name="a/b.onnx") == ("a/b.onnx: The file is truncated.",)
