"""What a model file must say of itself, and which tensors a role must find."""

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from kernels.tiny_llama import TinyShape, write_tiny

from odsi_proto.errors import ModelError
from odsi_proto.kernels.architectures import ARCHITECTURES
from odsi_proto.kernels.gguf import GgufFile
from odsi_proto.kernels.hyperparameters import read_config
from odsi_proto.kernels.roles import check_client, check_layers
from odsi_proto.units import LayerRange

GOOD = {
    "block_count": 2,
    "context_length": 64,
    "embedding_length": 32,
    "feed_forward_length": 64,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "vocab_size": 100,
}


def write_metadata(path: Path, changes: dict[str, object]) -> None:
    """A file of metadata alone: ``GOOD`` with ``changes``; None leaves a key out."""
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in (GOOD | changes).items():
        match value:
            case float():
                writer.add_float32(f"llama.{name}", value)
            case int():
                writer.add_int64(f"llama.{name}", value)
            case str():
                writer.add_string(f"llama.{name}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def test_the_shipped_model_is_read_in_full(shipped: GgufFile) -> None:
    config = read_config(shipped)
    assert (config.layers_count, config.width, config.feed_forward_width) == (30, 576, 1536)
    assert (config.heads, config.kv_heads, config.head_size) == (9, 3, 64)
    assert (config.context, config.vocabulary, config.rope_base) == (8192, 49152, 100_000.0)
    assert config.tied_head
    assert config.kv_bytes_per_layer == 2 * 3 * 64 * 4


def test_absent_keys_take_the_defaults_of_the_format(tmp_path: Path) -> None:
    write_metadata(tmp_path / "m.gguf", {"attention.head_count_kv": None})
    with GgufFile(tmp_path / "m.gguf") as file:
        config = read_config(file)
    assert (config.kv_heads, config.head_size, config.rope_base) == (4, 8, 10_000.0)


REFUSED = {
    "no layers": ({"block_count": 0}, "key llama.block_count is 0, expected 1 to 4096"),
    "layers below 0": ({"block_count": -1}, "key llama.block_count is -1, expected 1 to 4096"),
    "layers missing": ({"block_count": None}, "key llama.block_count is missing"),
    "layers in text": ({"block_count": "2"}, "key llama.block_count is string, expected an integer"),
    "a giant width": (
        {"embedding_length": 2**40},
        "key llama.embedding_length is 1099511627776, expected 1 to 26",
    ),
    "no context": ({"context_length": 0}, "key llama.context_length is 0"),
    "heads that do not divide the width": (
        {"attention.head_count": 6},
        "width of 32 can not be cut in 6 heads",
    ),
    "heads that do not share": (
        {"attention.head_count_kv": 3},
        "4 attention heads can not share 3 key-value heads",
    ),
    "an odd head size": ({"attention.key_length": 7}, "a head size of 7 is odd"),
    "values of another size": (
        {"attention.value_length": 16},
        "value_length is 16, expected the head size, 8",
    ),
    "partial rotation": ({"rope.dimension_count": 4}, "rope.dimension_count is 4, expected the head size, 8"),
    "a scaling nobody knows": (
        {"rope.scaling.type": "longrope"},
        "key llama.rope.scaling.type is 'longrope', expected 'none', 'linear' or 'yarn'",
    ),
    "a scaling without its factor": (
        {"rope.scaling.type": "yarn"},
        "key llama.rope.scaling.factor is missing",
    ),
    "a scaling that squeezes": (
        {"rope.scaling.type": "linear", "rope.scaling.factor": 0.5},
        "key llama.rope.scaling.factor is 0.5, expected 1 to 1e+06",
    ),
    "a factor without a scaling": (
        {"rope.scaling.type": "none", "rope.scaling.factor": 4.0},
        "key llama.rope.scaling.factor is 4.0, expected 1 to 1",
    ),
    "a magnitude without yarn": (
        {"rope.scaling.attn_factor": 2.0},
        "key llama.rope.scaling.attn_factor is 2.0, expected 1 to 1",
    ),
    "a ramp that goes down": (
        {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.yarn_beta_fast": 0.5},
        "key llama.rope.scaling.yarn_beta_fast is 0.5, expected at least",
    ),
    "a window": (
        {"attention.sliding_window": 4096},
        "key llama.attention.sliding_window is not understood",
    ),
    "a mixture of experts": ({"expert_count": 8}, "llama.expert_count is 8, expected 0"),
    "no epsilon": ({"attention.layer_norm_rms_epsilon": None}, "layer_norm_rms_epsilon is missing"),
    "epsilon not a number": (
        {"attention.layer_norm_rms_epsilon": float("nan")},
        "epsilon is nan, expected 1e-12",
    ),
    "a rope base of infinity": (
        {"rope.freq_base": float("inf")},
        "rope.freq_base is inf, expected 1.001 to 1e+12",
    ),
    "no vocabulary": ({"vocab_size": None}, "key llama.vocab_size is missing"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_value_names_file_and_key(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    write_metadata(tmp_path / "m.gguf", changes)
    with GgufFile(tmp_path / "m.gguf") as file, pytest.raises(ModelError) as caught:
        read_config(file)
    assert str(caught.value).startswith(f"{file.path}: ")
    assert message in str(caught.value)


def test_an_unknown_architecture_is_named_with_the_known_ones(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with GgufFile(tmp_path / "m.gguf") as file, pytest.raises(ModelError) as caught:
        read_config(file)
    assert f"architecture 'mamba' is not known, expected one of {', '.join(ARCHITECTURES)}" in str(
        caught.value
    )


def test_a_token_table_of_another_size_is_refused(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    for name, value in GOOD.items():
        (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(f"llama.{name}", value)
    writer.add_token_list(["a", "b"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with GgufFile(tmp_path / "m.gguf") as file, pytest.raises(ModelError) as caught:
        read_config(file)
    assert "key llama.vocab_size is 100, but tokenizer.ggml.tokens has 2 tokens" in str(caught.value)


# Tensors.


def write_changed(path: Path, change: Callable[[gguf.GGUFWriter, str, np.ndarray], None]) -> None:
    """A tiny model in which ``change`` adds each tensor, or something else in its place."""
    whole = path.with_name("whole.gguf")
    write_tiny(whole, TinyShape())
    source = gguf.GGUFReader(whole)
    writer = gguf.GGUFWriter(path, "llama")
    for name, field in source.fields.items():
        if not name.startswith(("GGUF.", "general.architecture")):
            item = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=item)
    for tensor in source.tensors:
        change(writer, tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def leave_out(writer: gguf.GGUFWriter, name: str, data: np.ndarray) -> None:
    if name != "blk.1.ffn_up.weight":
        writer.add_tensor(name, data)


def reshape(writer: gguf.GGUFWriter, name: str, data: np.ndarray) -> None:
    writer.add_tensor(name, data.T.copy() if name == "blk.1.attn_k.weight" else data)


def repack(writer: gguf.GGUFWriter, name: str, data: np.ndarray) -> None:
    writer.add_tensor(name, data.astype(np.int32) if name == "blk.1.attn_norm.weight" else data)


def add_bias(writer: gguf.GGUFWriter, name: str, data: np.ndarray) -> None:
    writer.add_tensor(name, data)
    if name == "blk.1.attn_q.weight":
        writer.add_tensor("blk.1.attn_q.bias", np.zeros(32, dtype=np.float32))


CHANGES = {
    "missing": (leave_out, "tensor blk.1.ffn_up.weight is missing, expected shape 64 x 32"),
    "of another shape": (reshape, "tensor blk.1.attn_k.weight has shape 32 x 16, expected 16 x 32"),
    "of another type": (repack, "tensor blk.1.attn_norm.weight has type I32, expected one of F32, F16"),
    "that would be left out": (add_bias, "tensor blk.1.attn_q.bias has no place in this architecture"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES.keys())
def test_a_wrong_tensor_concerns_only_those_who_load_its_layer(
    tmp_path: Path, change: Callable[[gguf.GGUFWriter, str, np.ndarray], None], message: str
) -> None:
    write_changed(tmp_path / "m.gguf", change)
    with GgufFile(tmp_path / "m.gguf") as file:
        config = read_config(file)
        check_client(file, config)
        check_layers(file, config, LayerRange(0, 1))
        with pytest.raises(ModelError) as caught:
            check_layers(file, config, LayerRange(0, 3))
    assert str(caught.value).startswith(f"{file.path}: {message}")


def layer_past_the_last(writer: gguf.GGUFWriter, name: str, data: np.ndarray) -> None:
    writer.add_tensor(name, data)
    if name.startswith("blk.2."):
        writer.add_tensor(name.replace("blk.2.", "blk.3."), data)


def outside(writer: gguf.GGUFWriter, name: str, data: np.ndarray) -> None:
    writer.add_tensor(name, data)
    if name == "output_norm.weight":
        writer.add_tensor("token_embd_norm.weight", data)


@pytest.mark.parametrize(
    ("change", "name"), [(layer_past_the_last, "blk.3.attn_norm.weight"), (outside, "token_embd_norm.weight")]
)
def test_a_tensor_that_no_stage_runs_concerns_the_client(
    tmp_path: Path, change: Callable[[gguf.GGUFWriter, str, np.ndarray], None], name: str
) -> None:
    write_changed(tmp_path / "m.gguf", change)
    with (
        GgufFile(tmp_path / "m.gguf") as file,
        pytest.raises(ModelError, match=f"tensor {name} has no place in this architecture"),
    ):
        check_client(file, read_config(file))


def test_layers_past_the_last_are_refused_with_both_numbers(tiny_path: Path) -> None:
    with (
        GgufFile(tiny_path) as file,
        pytest.raises(ModelError, match="layers 2-4 asked for, the model has 3"),
    ):
        check_layers(file, read_config(file), LayerRange(2, 4))


def test_a_stage_asks_for_its_own_tensors_and_no_others(tiny_path: Path) -> None:
    with GgufFile(tiny_path) as file:
        names = check_layers(file, read_config(file), LayerRange(1, 2))
    assert len(names) == 9
    assert all(name.startswith("blk.1.") for name in names)
