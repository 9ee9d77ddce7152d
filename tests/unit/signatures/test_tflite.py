"""The signature of TensorFlow Lite."""

import struct
import zipfile

import pytest

from registry_service.domain.signature import Signature, Tensor
from tests.model_files import (
    TFLITE,
)
from tests.stub_client import zip_of
from tests.unit.signatures.helpers import MIB, OneObject, read, signature_of, tensor


class TestTensorFlowLite:
    def test_a_model_has_a_full_signature(self) -> None:
        assert signature_of(TFLITE) == Signature(
            format="tflite",
            inputs=(tensor("image", "FLOAT32", "?", 4),),
            outputs=(tensor("score", "FLOAT32"), Tensor(name="extra", element_type="FLOAT32", shape=None)),
            weight_count=2,
            precision=("int8",),
            metadata={"version": "3", "description": "of a test", "operators": "FULLY_CONNECTED 1, MyOp 1"},
        )

    @pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_it_is_found_in_a_zip(self, compression: int) -> None:
        signature = signature_of(zip_of({"first": b"x", "m/model.tflite": TFLITE}, compression))
        assert (signature.format, signature.file_name, len(signature.outputs)) == ("tflite", "m/model.tflite", 2)

    def test_values_far_into_the_file_are_read_by_offset(self) -> None:
        moved = 64 * MIB
        data = bytearray(TFLITE[:8] + bytes(moved) + TFLITE[8:])
        data[:4] = struct.pack("<I", int.from_bytes(data[:4], "little") + moved)
        store = OneObject(data)
        signature = read(data, "m.tflite", store=store)
        assert (len(signature.outputs), signature.weight_count) == (2, 2)
        assert store.bytes_read < MIB
        compressed = signature_of(zip_of({"m.tflite": bytes(data)}))
        assert compressed.problems == ("Only the first 16 MiB were read, because the file is compressed.",)

    @pytest.mark.parametrize("cut", [1, 100, 400, 730])
    def test_a_truncated_file_is_a_problem(self, cut: int) -> None:
        assert signature_of(TFLITE[:-cut]).problems == (
            "The file is damaged or truncated: it refers to bytes beyond its end.",
        )

    def test_a_truncated_buffer_is_a_problem(self) -> None:
        weights = TFLITE.index(struct.pack("<I", 8) + bytes(8))
        data = TFLITE[:weights] + struct.pack("<I", 80_000) + TFLITE[weights + 4 :]
        signature = signature_of(data)
        assert (signature.weight_count, signature.problems) == (2, ("The file is truncated.",))

    @pytest.mark.parametrize("data", [b"weights", b"", b"\0\0\0\0TFL"])
    def test_a_file_that_is_only_named_tflite_is_a_problem(self, data: bytes) -> None:
        assert signature_of(data, "m.tflite").problems == ("The file is not a TensorFlow Lite model.",)
