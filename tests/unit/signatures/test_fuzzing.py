"""Random bytes and randomly changed files never make a reader raise."""

import zipfile
from dataclasses import asdict

from hypothesis import example, given, settings
from hypothesis import strategies as st

from registry_service.storage.sql import rows
from tests.model_files import (
    IR,
    TFLITE,
    geti_deployment,
    gguf,
    onnx_model,
    safetensors,
)
from tests.stub_client import zip_of
from tests.unit.signatures.helpers import read
from tests.unit.signatures.samples import AWQ, LLAMA, TORCH, numpy_file

ANY_FILE = st.sampled_from(
    [
        IR.encode(),
        onnx_model(metadata={"a": "b"}).SerializeToString(),
        safetensors({"a": ("F32", [2], 8), "b": ("I8", [1], 1)}, {"format": "pt"}),
        safetensors(AWQ),
        gguf(LLAMA, {"general.alignment": 32, "tokens": ["a"] * 20}),
        TFLITE,
        numpy_file([1.0]),
        zip_of(TORCH),
        zip_of(geti_deployment()),
        zip_of({"model.onnx": onnx_model().SerializeToString()}, zipfile.ZIP_STORED),
    ]
)


NAMES = st.sampled_from(
    ["model.bin", "model.xml", "model.onnx", "model.safetensors", "model.zip", "m.gguf", "m.tflite"]
)


@settings(max_examples=300)
@given(
    data=ANY_FILE,
    cut=st.integers(0, 6000),
    edits=st.lists(st.tuples(st.integers(0, 6000), st.binary(max_size=8)), max_size=4),
    name=NAMES,
)
def test_files_with_bytes_changed_or_cut_off_never_raise(
    data: bytes, cut: int, edits: list[tuple[int, bytes]], name: str
) -> None:
    for at, piece in edits:
        data = data[:at] + piece + data[at + len(piece) :]
    data = data[: max(len(data) - cut, 0)]
    for media_type in ("", "application/zip"):
        signature = read(data, name, media_type)
        assert signature is None or rows._signature(asdict(signature)) == signature


@settings(max_examples=300)
@given(
    data=st.binary(max_size=2000),
    beginning=st.sampled_from([b"", b"<net ", b"\x08\x07\x3a", b"\x40\0\0\0\0\0\0\0{", b"PK\x03\x04"]),
    name=NAMES,
)
@example(data=b"", beginning=b"", name="model.zip")
def test_any_bytes_never_raise(data: bytes, beginning: bytes, name: str) -> None:
    read(beginning + data, name)
