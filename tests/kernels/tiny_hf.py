"""The models of ``tiny_llama`` as Hugging Face lays them out, written by hand."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from kernels.tiny_llama import (
    CHAT_TEMPLATE,
    CONTROL_TOKENS,
    EPSILON,
    MERGES,
    TOKENS,
    TinyShape,
    random_weights,
)
from numpy.typing import NDArray

MODULES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
TYPE_NAMES = {"float32": "F32", "float16": "F16", "uint16": "BF16"}


def hf_tensors(shape: TinyShape) -> dict[str, NDArray[Any]]:
    """The weights under Hugging Face's names, with rotary pairs half a head apart."""
    found = {}
    for name, array in random_weights(shape).items():
        if name in OUTSIDE:
            found[OUTSIDE[name]] = array
        elif name.startswith("blk."):
            _, layer, module, kind = name.split(".")
            if module in ("attn_q", "attn_k") and not shape.halves:
                array = apart(array, shape.head_size)  # noqa: PLW2901
            found[f"model.layers.{layer}.{MODULES[module]}.{kind}"] = array
    return found


def apart(rows: NDArray[Any], head_size: int) -> NDArray[Any]:
    """Neighbouring rows of each head put half a head apart."""
    return rows.reshape(-1, head_size // 2, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def config_of(shape: TinyShape) -> dict[str, Any]:
    """The config.json of a model of ``shape``."""
    name = shape.architecture
    config: dict[str, Any] = {
        "architectures": [f"{name.capitalize()}ForCausalLM"],
        "model_type": name,
        "hidden_size": shape.width,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_size,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": EPSILON,
        "rope_theta": shape.rope_base,
        "tie_word_embeddings": shape.tied,
        "vocab_size": len(TOKENS),
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    scaling = shape.scaling
    if scaling is not None:
        kinds: dict[str, dict[str, Any]] = {
            "linear": {},
            "llama3": {
                "low_freq_factor": scaling.low,
                "high_freq_factor": scaling.high,
                "original_max_position_embeddings": scaling.original_context,
            },
            "yarn": {"original_max_position_embeddings": scaling.original_context},
        }
        config["rope_scaling"] = {"rope_type": scaling.kind, "factor": scaling.factor, **kinds[scaling.kind]}
        if scaling.attention_factor is not None:
            config["rope_scaling"]["attention_factor"] = scaling.attention_factor
    return config


def tokenizer_json() -> dict[str, Any]:
    """The vocabulary of ``tiny_llama`` as the ``tokenizers`` library writes one down."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": None,
        "added_tokens": [
            {"id": index, "content": token, "special": True, **flags}
            for index, token in enumerate(CONTROL_TOKENS)
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": {token: index for index, token in enumerate(TOKENS)},
            "merges": list(MERGES),
        },
    }


def safetensors_bytes(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """A safetensors file; 16-bit integers are taken for the bits of bfloat16."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, array in tensors.items():
        header[name] = {
            "dtype": TYPE_NAMES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    return with_header(json.dumps(header).encode()) + b"".join(array.tobytes() for array in tensors.values())


def with_header(header: bytes) -> bytes:
    """A header after its length."""
    return struct.pack("<Q", len(header)) + header


def write_tiny_hf(
    directory: Path, shape: TinyShape, *, shards: int = 1, dtype: str = "float32"
) -> dict[str, NDArray[Any]]:
    """Write a whole directory; returns its tensors under Hugging Face's names."""
    directory.mkdir(exist_ok=True)
    tensors = {name: _as_type(array, dtype) for name, array in hf_tensors(shape).items()}
    if shards == 1:
        (directory / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    else:
        _write_shards(directory, tensors, shards)
    write_json(directory / "config.json", config_of(shape))
    write_json(directory / "tokenizer.json", tokenizer_json())
    write_json(
        directory / "tokenizer_config.json",
        {
            "bos_token": CONTROL_TOKENS[1],
            "eos_token": {"content": CONTROL_TOKENS[2], "special": True},
            "chat_template": CHAT_TEMPLATE,
        },
    )
    return tensors


def write_json(path: Path, value: object) -> None:
    """``value`` as JSON."""
    path.write_text(json.dumps(value), encoding="utf-8")


def _write_shards(directory: Path, tensors: Mapping[str, NDArray[Any]], shards: int) -> None:
    weight_map = {}
    for index in range(shards):
        shard = f"model-{index + 1:05}-of-{shards:05}.safetensors"
        names: Sequence[str] = list(tensors)[index::shards]
        (directory / shard).write_bytes(safetensors_bytes({name: tensors[name] for name in names}))
        weight_map |= dict.fromkeys(names, shard)
    write_json(directory / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def _as_type(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    if dtype == "bfloat16":
        return (np.ascontiguousarray(array).view(np.uint32) >> 16).astype(np.uint16)
    return np.ascontiguousarray(array, dtype=dtype)
