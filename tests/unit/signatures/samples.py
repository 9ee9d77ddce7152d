"""Model files that several tests read."""

import io
import pickle
from typing import Any

import numpy

AWQ = {
    "q.qweight": ("I32", [128, 16], 4 * 128 * 16),
    "q.qzeros": ("I32", [1, 16], 64),
    "q.scales": ("F16", [1, 128], 256),
}


# Of a file that gguf-py 0.19 wrote, and as its reader tells it.
LLAMA = {
    "token_embd.weight": (12, [256, 64], 9216),
    "blk.0.attn_q.weight": (14, [256, 32], 6720),
    "output_norm.weight": (0, [256], 1024),
    "blk.0.ffn.weight": (1, [256, 4], 2048),
}


LLAMA_METADATA = {
    "general.architecture": "llama",
    "general.name": "tiny",
    "general.file_type": 15,
    "llama.rope.freq_base": 1000000.0,
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.ggml.tokens": [f"token {i}" for i in range(1000)],
    "tokenizer.ggml.scores": [0.5] * 1000,
    "general.tags": ["text", "tiny"],
}


def numpy_file(array: Any) -> bytes:
    file = io.BytesIO()
    numpy.save(file, array, allow_pickle=True)
    return file.getvalue()


TORCH = {"m/data.pkl": pickle.dumps({}), "m/byteorder": b"little", "m/data/0": bytes(16), "m/version": b"3\n"}
