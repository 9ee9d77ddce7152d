"""The signature of a model in a ZIP."""

import io
import os
import struct
import zipfile

import pytest
from onnx import TensorProto

from registry_service.signatures import limits
from tests.model_files import (
    IR,
    WEIGHTS,
    geti_deployment,
    onnx_model,
    raw_weight,
    safetensors,
)
from tests.stub_client import zip_of
from tests.unit.signatures.helpers import MIB, OneObject, read, signature_of

UNREAD = (
    "The ZIP has members that were not read, because they are encrypted or use a compression method other than deflate"
)


class TestZip:
    def test_the_shallowest_complete_model_is_read_and_others_are_mentioned(self) -> None:
        members = {
            "a.xml": IR.encode(),
            "z/model.xml": IR.replace("image", "complete").encode(),
            "z/model.bin": WEIGHTS,
            "z/z/model.xml": IR.encode(),
            "z/z/model.bin": WEIGHTS,
        }
        signature = signature_of(zip_of(members))
        assert signature.file_name == "z/model.xml"
        assert signature.inputs[0].name == "complete"
        assert signature.problems == ("The ZIP holds more models; only this one was read.",)

    @pytest.mark.parametrize(
        ("names", "model"),
        [
            ("openvino_detokenizer openvino_tokenizer openvino_model", "openvino_model"),
            ("openvino_tokenizer openvino_model_with_a_long_name", "openvino_model_with_a_long_name"),
            ("a/openvino_model tokenizer", "a/openvino_model"),
            ("text_encoder/openvino_model vae_decoder/openvino_model unet/openvino_model", "unet/openvino_model"),
            ("vocoder model_of_speech", "model_of_speech"),
            ("tokenizer", "tokenizer"),
            ("aa b", "b"),
            ("b a", "a"),
            ("d/a deep", "deep"),
            ("vae_tokenizer vae", "vae"),
            ("a_evaluated b_vaerified_model", "a_evaluated"),
            ("lora/a z", "z"),
            ("audio_encoder decoder_model_merged embed_tokens vision_encoder", "decoder_model_merged"),
            ("encoder_model decoder_model speaker_encoder", "decoder_model"),
            ("preprocess segmentation_model postprocessing", "segmentation_model"),
        ],
    )
    @pytest.mark.parametrize("suffix", [".xml", ".onnx"])
    def test_the_model_precedes_its_accessories_then_the_shortest_path(
        self, names: str, model: str, suffix: str
    ) -> None:
        data = IR.encode() if suffix == ".xml" else onnx_model().SerializeToString()
        members = {f"{name}{suffix}": data for name in names.split()}
        if suffix == ".xml":
            members |= {f"{name}.bin": WEIGHTS for name in names.split()}
        signature = signature_of(zip_of(members))
        assert signature.file_name == model + suffix
        more = ("The ZIP holds more models; only this one was read.",)
        assert signature.problems == (more if len(names.split()) > 1 else ())

    def test_a_model_without_its_weights_is_still_the_model(self) -> None:
        members = {"model.xml": IR.encode(), "tokenizer.xml": IR.encode(), "tokenizer.bin": WEIGHTS}
        signature = signature_of(zip_of(members))
        assert signature.file_name == "model.xml"
        assert "The weights file model.bin is missing." in signature.problems

    def test_parts_of_a_model_are_not_taken_for_more_models(self) -> None:
        part = safetensors({"a": ("F32", [2], 8)})
        names = [f"m/model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
        signature = signature_of(zip_of(dict.fromkeys(names, part)))
        problem = "The file is one of 3 parts of a model; only this part was read."
        assert (signature.file_name, signature.problems) == (names[0], (problem,))
        signature = signature_of(zip_of(dict.fromkeys([*names, "m/vae.safetensors"], part)))
        assert signature.problems == (problem, "The ZIP holds more models; only this one was read.")
        assert signature_of(part, "model-00002-of-00003.safetensors").problems == (problem,)
        assert signature_of(part, "model-00001-of-00001.safetensors").problems == ()

    def test_the_content_determines_the_format(self) -> None:
        members = {
            "__MACOSX/._model.onnx": b"\0\x05\x16\x07",
            "annotation.xml": b"<annotation/>",
            "a.safetensors": b"x",
            "deep/er/model.ONNX": onnx_model().SerializeToString(),
        }
        signature = signature_of(zip_of(members))
        assert (signature.format, signature.file_name, signature.problems) == ("onnx", "deep/er/model.ONNX", ())

    def test_a_file_that_is_only_named_as_a_model_is_a_problem(self) -> None:
        signature = signature_of(zip_of({"b/model.onnx": b"x", "a.safetensors": b"y"}))
        assert (signature.format, signature.problems) == ("safetensors", ("The file is not safetensors.",))

    def test_without_a_model_there_is_no_signature(self) -> None:
        assert read(zip_of({"a.txt": b"x", "a.xml": b"<a/>", "folder.onnx/": b""})) is None
        assert read(zip_of({})) is None

    def test_members_that_are_not_compressed_are_read_where_they_are(self) -> None:
        weights = [raw_weight(str(i), TensorProto.FLOAT, [MIB], 4 * MIB) for i in range(3)]
        data = zip_of({"first": b"x", "m.onnx": onnx_model(weights=weights).SerializeToString()}, zipfile.ZIP_STORED)
        store = OneObject(data)
        signature = read(data, store=store)
        assert signature is not None
        assert (signature.weight_count, signature.problems) == (3, ())
        assert store.bytes_read < MIB

    def test_compressed_members_are_read_forwards(self) -> None:
        weights = [raw_weight(str(i), TensorProto.FLOAT, [MIB], 4 * MIB) for i in range(3)]
        signature = signature_of(zip_of({"m.onnx": onnx_model(weights=weights).SerializeToString()}))
        assert (signature.weight_count, len(signature.outputs), signature.problems) == (3, 1, ())

    @pytest.mark.parametrize(
        "name", ["../../model.onnx", "/model.onnx", "a\nb.onnx", "\u202eevil.onnx", "x" * 5000 + ".onnx"]
    )
    def test_unusual_names_are_accepted(self, name: str) -> None:
        signature = signature_of(zip_of({name: onnx_model().SerializeToString()}))
        assert signature.format == "onnx"
        assert len(signature.file_name) <= limits.TEXT_LENGTH

    def test_an_encrypted_model_is_a_problem(self) -> None:
        data = bytearray(zip_of({"model.onnx": onnx_model().SerializeToString()}))
        for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            data[data.index(magic) + at] |= 1
        signature = signature_of(bytes(data))
        assert (signature.format, signature.problems) == ("", (f"{UNREAD}: 'model.onnx'.",))

    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    @pytest.mark.parametrize("name", ["model.onnx", "model.xml", "model.pt", "model.pkl"])
    def test_a_model_compressed_with_another_method_is_a_problem(self, method: int, name: str) -> None:
        signature = signature_of(zip_of({name: onnx_model().SerializeToString(), "read.me": b"x"}, method))
        assert (signature.format, signature.problems) == ("", (f"{UNREAD}: {name!r}.",))

    def test_a_readable_model_is_read_beside_an_unreadable_one(self) -> None:
        data = zip_of({"m/a.onnx": b"x", "m/b.onnx": b"x"}, zipfile.ZIP_LZMA)
        file = io.BytesIO(data)
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr("m/model.onnx", onnx_model().SerializeToString())
            archive.writestr("m/weights.bin", b"x" * 100, zipfile.ZIP_BZIP2)
        signature = signature_of(file.getvalue())
        assert (signature.format, signature.file_name) == ("onnx", "m/model.onnx")
        assert signature.problems == (f"{UNREAD}: 'm/a.onnx', and 1 more.",)

    def test_a_damaged_member_is_a_problem(self) -> None:
        data = bytearray(zip_of({"model.onnx": os.urandom(2 * MIB)}))
        data[data.index(b"model.onnx") + 500 : data.index(b"model.onnx") + 900] = bytes(400)
        assert len(signature_of(bytes(data)).problems) == 1

    def test_a_stored_member_beyond_the_end_has_no_signature(self) -> None:
        data = bytearray(zip_of({"model.onnx": onnx_model().SerializeToString()}, zipfile.ZIP_STORED))
        at = data.index(b"PK\x01\x02")
        data[at + 20 : at + 28] = struct.pack("<II", 2**31, 2**31)
        signature = read(bytes(data))
        assert signature is None or signature.problems

    @pytest.mark.parametrize("cut", [1, 22, 100])
    def test_a_truncated_zip_has_no_signature(self, cut: int) -> None:
        assert read(zip_of(geti_deployment())[:-cut], media_type="application/zip") is None
