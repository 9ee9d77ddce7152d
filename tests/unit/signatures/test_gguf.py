"""The signature of GGUF."""

import pytest

from registry_service.domain.signature import Signature
from tests.model_files import (
    gguf,
)
from tests.stub_client import zip_of
from tests.unit.signatures.helpers import MIB, OneObject, read, signature_of, tensor
from tests.unit.signatures.samples import LLAMA, LLAMA_METADATA


class TestGguf:
    @pytest.mark.parametrize("order", ["<", ">"])
    def test_a_file_of_either_byte_order_has_a_full_signature(self, order: str) -> None:
        assert signature_of(gguf(LLAMA, LLAMA_METADATA, order=order), "m.gguf") == Signature(
            format="gguf",
            weights=(
                tensor("token_embd.weight", "Q4_K", 256, 64),
                tensor("blk.0.attn_q.weight", "Q6_K", 256, 32),
                tensor("output_norm.weight", "F32", 256),
                tensor("blk.0.ffn.weight", "F16", 256, 4),
            ),
            weight_count=4,
            precision=("int4", "q6_k", "fp16", "fp32"),
            metadata={
                "version": "3",
                "general.architecture": "llama",
                "general.name": "tiny",
                "general.file_type": "15",
                "llama.rope.freq_base": "1000000",
                "tokenizer.ggml.add_bos_token": "true",
                "general.tags": "text, tiny",
                "quantization": "Q4_K_M",
                "parameter_count": "25856",
                "tensor_types": "Q4_K 1, Q6_K 1, F32 1, F16 1",
            },
        )

    @pytest.mark.parametrize(
        ("number", "shape", "size", "precision"),
        [
            (2, [32], 18, "int4"),
            (23, [256], 136, "int4"),
            (8, [32], 34, "int8"),
            (24, [4], 4, "int8"),
            (30, [4], 8, "bf16"),
            (39, [32], 17, "f4"),
            (10, [256], 84, "q2_k"),
            (34, [256], 54, "tq1_0"),
        ],
    )
    def test_quantizations_have_their_precision(self, number: int, shape: list[int], size: int, precision: str) -> None:
        signature = signature_of(gguf({"a": (number, shape, size)}))
        assert (signature.precision, signature.problems) == ((precision,), ())

    def test_tensors_of_an_unknown_type_are_a_problem(self) -> None:
        signature = signature_of(gguf({"a": (999, [256], 84), "b": (999, [256], 84), "c": (0, [1], 4)}))
        assert (signature.weight_count, signature.precision) == (3, ("type 999", "fp32"))
        assert signature.problems == ("Tensors have the unknown type 999, so their size is unknown.",)

    @pytest.mark.parametrize("text", [b"GGUF is a format of files", b"GGUFxyz and more", b"GGUF\n\n\n\n"])
    def test_a_text_with_the_same_first_bytes_is_not_gguf(self, text: bytes) -> None:
        assert read(text, "about.txt") is None
        assert read(zip_of({"about.gguf.txt": text})) is None
        assert signature_of(text, "about.gguf").problems == ("The file is not GGUF.",)

    def test_long_vocabularies_are_skipped_quickly(self) -> None:
        data = gguf(LLAMA, {"tokens": ["a token"] * 300_000, "after": 1})
        store = OneObject(data)
        signature = read(data, "m.gguf", store=store)
        assert signature.metadata["after"] == "1"
        assert (signature.weight_count, signature.problems) == (4, ())
        assert store.bytes_read < len(data) + MIB

    @pytest.mark.parametrize(
        ("data", "problem"),
        [
            (gguf(LLAMA)[:-100], "The file is truncated: it has 18908 of the 19008 bytes of its tensors."),
            (gguf(LLAMA)[:60], "The file is truncated."),
            (gguf(LLAMA, version=1), "GGUF version 1 is not supported; supported are versions 2 and 3."),
            (gguf(LLAMA, version=4), "GGUF version 4 is not supported; supported are versions 2 and 3."),
            (gguf({"a": (12, [255], 144)}), "The tensor 'a' is not a whole number of blocks of 256 elements."),
            (gguf({}, {"general.alignment": 33}), "The alignment 33 is not a power of two."),
            (gguf({}, {"split.count": 3}), "The file is one of 3 parts of a model; only this part was read."),
            (gguf({"a": (0, [1] * 65, 4)}), "A tensor has more than 64 dimensions."),
            (b"GGUF", "The file is truncated."),
            (gguf({}, {"a": 1}).replace(b"a\x04\0\0\0", b"a\x0d\0\0\0"), "A metadata value has an unknown type."),
        ],
    )
    def test_damage_is_a_problem(self, data: bytes, problem: str) -> None:
        assert signature_of(data).problems == (problem,)

    def test_a_file_that_is_only_named_gguf_is_a_problem(self) -> None:
        assert signature_of(b"weights", "model.gguf").problems == ("The file is not GGUF.",)

    def test_it_is_found_in_a_zip(self) -> None:
        signature = signature_of(zip_of({"m/model.gguf": gguf(LLAMA), "m/mmproj.gguf": gguf(LLAMA), "a.npy": b""}))
        assert (signature.file_name, signature.weight_count) == ("m/model.gguf", 4)
