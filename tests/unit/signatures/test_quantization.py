"""The precision of weights that quantizers pack into tensors of another type."""

import json
import struct
import zipfile
from typing import Any

import pytest

from registry_service.signatures import limits
from tests.model_files import (
    safetensors,
)
from tests.stub_client import zip_of
from tests.unit.signatures.helpers import OneObject, read, signature_of
from tests.unit.signatures.samples import AWQ


def gptq(bits: int, features: int = 128) -> dict[str, tuple[str, list[int], int]]:
    """The tensors of a layer that GPTQ quantized, of 2 groups."""
    packed = features * bits // 32
    return {
        "model.layers.0.q.qweight": ("I32", [packed, features], 4 * packed * features),
        "model.layers.0.q.qzeros": ("I32", [2, packed], 8 * packed),
        "model.layers.0.q.scales": ("F16", [2, features], 4 * features),
        "model.layers.0.q.g_idx": ("I32", [features], 4 * features),
        "model.norm.weight": ("F16", [features], 2 * features),
    }


NF4 = {
    "q.weight": ("U8", [4096, 1], 4096),
    "q.weight.absmax": ("U8", [128], 128),
    "q.weight.nested_absmax": ("F32", [1], 4),
    "q.weight.quant_map": ("F32", [16], 64),
    "q.weight.quant_state.bitsandbytes__nf4": ("U8", [90], 90),
    "norm.weight": ("BF16", [64], 128),
}


FP4 = {name.replace("nf4", "fp4"): found for name, found in NF4.items()}


NVFP4 = {
    "q.weight": ("U8", [64, 32], 2048),
    "q.weight_scale": ("F8_E4M3", [64, 4], 256),
    "q.weight_scale_2": ("F32", [], 4),
    "norm.weight": ("BF16", [64], 128),
}


PACKED_FP4 = {name.replace("q.weight", "q.weight_packed", name == "q.weight"): found for name, found in NVFP4.items()}


MXFP4 = {
    "mlp.gate_proj_blocks": ("U8", [2, 8, 4, 16], 1024),
    "mlp.gate_proj_scales": ("U8", [2, 8, 4], 64),
    "norm.weight": ("BF16", [64], 128),
}


FP8 = {"q.weight": ("F8_E4M3", [64, 64], 4096), "q.weight_scale_inv": ("F32", [1, 1], 4)}


INT8 = {"q.weight": ("I8", [64, 64], 4096), "q.SCB": ("F32", [64], 256), "norm.weight": ("F16", [64], 128)}


SCALED_INT8 = {"q.weight": ("I8", [64, 64], 4096), "q.weight_scale": ("F16", [64, 1], 128)}


PACKED = {
    "q.weight_packed": ("I32", [64, 8], 2048),
    "q.weight_scale": ("F16", [64, 2], 256),
    "q.weight_shape": ("I64", [2], 16),
}


PACKED_WITH_ZEROS = PACKED | {"q.weight_zero_point": ("I32", [8, 2], 64)}


MLX = {
    "q.weight": ("U32", [64, 8], 2048),
    "q.scales": ("F16", [64, 1], 128),
    "q.biases": ("F16", [64, 1], 128),
}


TRELLIS = {"q.trellis": ("I16", [4, 4, 64], 2048), "q.suh": ("F16", [64], 128)}


UNKNOWN_WIDTH = "The precision is unknown: weights are packed into wider integers without a declared number of bits."


class TestPackedWeights:
    @pytest.mark.parametrize(
        ("tensors", "precision"),
        [
            (gptq(4), ("int4", "fp16")),
            (gptq(3), ("int3", "fp16")),
            (gptq(8), ("int8", "fp16")),
            (gptq(2), ("int2", "fp16")),
            ({name: found for name, found in gptq(4).items() if "qzeros" not in name}, ("int4", "fp16")),
            (AWQ, ("int4", "fp16")),
            (NF4, ("int4", "bf16", "fp32")),
            (FP4, ("f4", "bf16", "fp32")),
            (NVFP4, ("f4", "bf16", "fp32")),
            (PACKED_FP4, ("f4", "bf16", "fp32")),
            (MXFP4, ("f4", "bf16")),
            (FP8, ("f8_e4m3", "fp32")),
            (INT8, ("int8", "fp32", "fp16")),
            (SCALED_INT8, ("int8", "fp16")),
            (PACKED_WITH_ZEROS, ("int4", "fp16")),
        ],
    )
    def test_names_and_shapes_determine_the_width(self, tensors: Any, precision: tuple[str, ...]) -> None:
        signature = signature_of(safetensors(tensors))
        assert (signature.precision, signature.weight_count, signature.problems) == (precision, len(tensors), ())

    @pytest.mark.parametrize(
        ("columns", "precision"), [(64, ("int4", "fp16")), (32, ("int8", "fp16")), (60, ("int4", "fp16"))]
    )
    def test_the_shape_in_the_data_determines_the_width(self, columns: int, precision: tuple[str, ...]) -> None:
        data = safetensors(PACKED)[:-16] + struct.pack("<QQ", 64, columns)
        store = OneObject(data)
        signature = read(data, "m.safetensors", store=store)
        assert (signature.precision, signature.problems) == (precision, ())
        assert read(zip_of({"m.safetensors": data}, zipfile.ZIP_STORED)).precision == precision
        assert read(zip_of({"m.safetensors": data})).problems == (UNKNOWN_WIDTH,)

    @pytest.mark.parametrize("tensors", [PACKED, MLX, TRELLIS, {"q.W_q": ("U8", [64, 8], 512), "q.n": ("F16", [1], 2)}])
    def test_the_precision_is_otherwise_unknown(self, tensors: Any) -> None:
        signature = signature_of(safetensors(tensors))
        assert (signature.precision, signature.problems) == ((), (UNKNOWN_WIDTH,))
        assert signature.weight_count == len(tensors)

    @pytest.mark.parametrize(
        ("file_name", "config"),
        [
            ("config.json", {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}}),
            ("config.json", {"quantization": {"group_size": 64, "bits": 4}, "num_bits": 7}),
            ("config.json", {"quantization_config": {"load_in_4bit": True, "load_in_8bit": False}}),
            ("config.json", {"quantization_config": {"quant_type": "int4_weight_only"}}),
            ("config.json", {"quantization_config": {"quant_method": "quanto", "weights": "int4"}}),
            (
                "config.json",
                {
                    "quantization_config": {
                        "config_groups": {"0": {"weights": {"num_bits": 4}, "input_activations": {"num_bits": 8}}},
                        "kv_cache_scheme": {"num_bits": 8},
                    }
                },
            ),
            ("quantize_config.json", {"bits": 4}),
            ("quant_config.json", {"w_bit": 4}),
            ("hf_quant_config.json", {"quantization": {"quant_algo": "W4A16_AWQ", "kv_cache_quant_algo": "FP8"}}),
        ],
    )
    @pytest.mark.parametrize("tensors", [PACKED, MLX])
    def test_the_configuration_beside_it_determines_the_width(self, tensors: Any, file_name: str, config: Any) -> None:
        members = {"m/model.safetensors": safetensors(tensors), f"m/{file_name}": json.dumps(config).encode()}
        signature = signature_of(zip_of(members))
        assert (signature.precision, signature.problems) == (("int4", "fp16"), ())

    @pytest.mark.parametrize(
        "config",
        [
            b"",
            b"[" * 200_000,
            b"[]",
            b"{}",
            b'{"quantization_config":7}',
            b'{"quantization_config":{"bits":true}}',
            b'{"quantization_config":{"bits":400}}',
            b'{"quantization":{"bits":4,"model.layers.0":{"bits":8}}}',
            b'{"quantization_config":{"bits":4},"x":"' + b"x" * limits.CONFIGURATION_BYTES + b'"}',
        ],
    )
    def test_a_configuration_without_a_width_leaves_it_unknown(self, config: bytes) -> None:
        signature = signature_of(zip_of({"model.safetensors": safetensors(MLX), "config.json": config}))
        assert (signature.precision, signature.problems) == ((), (UNKNOWN_WIDTH,))

    def test_indices_are_not_taken_for_weights(self) -> None:
        tensors = {
            "attn.relative_position_index": ("I64", [64, 64], 32768),
            "attn.scale": ("F32", [1], 4),
            "attn.weight": ("F32", [100, 100], 40000),
            "ids": ("I64", [9999], 8 * 9999),
            "mask": ("U8", [8, 8], 64),
        }
        signature = signature_of(safetensors(tensors))
        assert (signature.precision, signature.problems) == (("fp32", "int8"), ())
