"""What a config.json may say, and what it is refused for."""

from pathlib import Path
from typing import Any

import pytest
from kernels.tiny_hf import config_of, write_json, write_tiny_hf
from kernels.tiny_llama import TinyShape

from odsi_proto.errors import ModelError
from odsi_proto.kernels.architectures import ARCHITECTURES
from odsi_proto.kernels.config import ModelConfig
from odsi_proto.kernels.hf_model import HfModel
from odsi_proto.kernels.hyperparameters import read_config

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write_tiny_hf(tmp_path, TinyShape())
    return tmp_path


def read(directory: Path, changes: dict[str, Any]) -> ModelConfig:
    """The config of a tiny Llama with ``changes``; None leaves a key out."""
    values = {key: value for key, value in (config_of(TinyShape()) | changes).items() if value is not None}
    write_json(directory / "config.json", values)
    with HfModel(directory) as model:
        return read_config(model)


ACCEPTED = [
    {"architectures": None, "head_dim": None, "rope_theta": None},
    {"sliding_window": 4096, "use_sliding_window": False, "max_window_layers": 1},
    {"layer_types": ["full_attention"] * 3},
    {"attention_bias": False, "mlp_bias": False, "pretraining_tp": 2, "torch_dtype": "bfloat16"},
    {"rope_scaling": {"type": "default"}},
    {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 10_000}},
    {"rope_scaling": {"type": "linear", "factor": 1}},
    {"partial_rotary_factor": 1.0, "rms_norm_eps": 1e-5},
]


@pytest.mark.parametrize("changes", ACCEPTED, ids=range(len(ACCEPTED)))
def test_what_changes_nothing_is_taken(directory: Path, changes: dict[str, Any]) -> None:
    found = read(directory, changes)
    assert (found.head_size, found.rope_base, found.kv_heads) == (8, 10_000.0, 2)
    assert found.rope_divisors in (None, (1.0,) * 4)


def test_the_base_and_the_scaling_may_be_in_one_object(directory: Path) -> None:
    found = read(directory, {"rope_theta": None, "rope_parameters": {**LLAMA3, "rope_theta": 500_000.0}})
    assert (found.rope_base, found.rope_scaling) == (500_000.0, "llama3")
    assert found.rope_divisors is not None
    assert found.rope_divisors[0] == 1.0
    assert found.rope_divisors[-1] == 8.0


def test_a_stated_attention_factor_takes_the_place_of_the_usual_one(directory: Path) -> None:
    usual = read(directory, {"rope_scaling": YARN}).rope_magnitude
    assert usual == pytest.approx(1.1386294)
    assert read(directory, {"rope_scaling": YARN | {"attention_factor": 1.0}}).rope_magnitude == 1.0


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no type": ({"model_type": None}, "key model_type is missing"),
    "another type": (
        {"model_type": "mamba"},
        f"'mamba' is not known, expected one of {', '.join(ARCHITECTURES)}",
    ),
    "another class": ({"architectures": ["LlamaForSequenceClassification"]}, "expected LlamaForCausalLM"),
    "layers in text": ({"num_hidden_layers": "3"}, "key num_hidden_layers is '3', expected an integer"),
    "layers that are true": (
        {"num_hidden_layers": True},
        "key num_hidden_layers is True, expected an integer",
    ),
    "no layers": ({"num_hidden_layers": 0}, "key num_hidden_layers is 0, expected 1 to 4096"),
    "layers missing": ({"num_hidden_layers": None}, "key num_hidden_layers is missing"),
    "a giant width": ({"hidden_size": 262_145}, "key hidden_size is 262145, expected 1 to 262144"),
    "a number of hundreds of digits": ({"hidden_size": 10**400}, "expected at most 9223372036854775807"),
    "a giant context": ({"max_position_embeddings": 2**40}, "key max_position_embeddings is 1099511627776"),
    "heads that do not share": ({"num_key_value_heads": 3}, "4 attention heads can not share 3"),
    "an odd head size": ({"head_dim": 7}, "a head size of 7 is odd"),
    "no epsilon": ({"rms_norm_eps": None}, "key rms_norm_eps is missing"),
    "an epsilon too large for a float": (
        {"rms_norm_eps": 10**400},
        "key rms_norm_eps is inf, expected 1e-12",
    ),
    "another activation": ({"hidden_act": "gelu"}, "key hidden_act is 'gelu', expected 'silu'"),
    "an attention bias": ({"attention_bias": True}, "key attention_bias is 'True', expected False"),
    "a bias that is 0": ({"attention_bias": 0}, "key attention_bias is '0', expected False"),
    "a bias elsewhere": ({"mlp_bias": True}, "key mlp_bias is 'True', expected False"),
    "a window": ({"sliding_window": 4096}, "key sliding_window is '4096', expected none"),
    "a window in use": (
        {"sliding_window": 4096, "use_sliding_window": True},
        "key use_sliding_window is 'True', expected False",
    ),
    "a window in a layer": (
        {"layer_types": ["full_attention", "sliding_attention"]},
        "key layer_types has 'sliding_attention', expected 'full_attention' alone",
    ),
    "experts": ({"num_local_experts": 8}, "key num_local_experts is '8', expected 0"),
    "quantisation": ({"quantization_config": {"bits": 4}}, "key quantization_config is "),
    "code of its own": ({"auto_map": {"AutoModel": "x.Y"}}, "key auto_map is "),
    "partial rotation": ({"partial_rotary_factor": 0.5}, "key partial_rotary_factor is '0.5', expected 1"),
    "a tied head that is there": (
        {"tie_word_embeddings": 1},
        "key tie_word_embeddings is 1, expected true or",
    ),
    "a head that is missing": (
        {"tie_word_embeddings": False},
        "key tie_word_embeddings is not true, but the files lack tensor lm_head.weight",
    ),
    "an unknown scaling": (
        {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
        "key rope_scaling.rope_type is 'dynamic', expected one of default, linear, llama3, yarn",
    ),
    "a scaling that is a list": ({"rope_scaling": []}, "key rope_scaling is [], expected an object"),
    "a scaling with a stranger": (
        {"rope_scaling": YARN | {"mscale": 2.0}},
        "key 'rope_scaling.mscale' is not understood in scaling of type yarn",
    ),
    "a scaling without its factor": (
        {"rope_scaling": {"type": "linear"}},
        "key rope_scaling.factor is missing",
    ),
    "a scaling that squeezes": (
        {"rope_scaling": {"type": "linear", "factor": 0.5}},
        "key rope_scaling.factor is 0.5, expected 1 to 1e+06",
    ),
    "a ramp that goes down": (
        {"rope_scaling": LLAMA3 | {"high_freq_factor": 1.0}},
        "key rope_scaling.high_freq_factor is 1.0, expected more than low_freq_factor, 1.0",
    ),
    "two scalings": (
        {"rope_scaling": YARN, "rope_parameters": YARN},
        "has both rope_scaling and rope_parameters",
    ),
    "two bases": (
        {"rope_parameters": {"rope_theta": 5.0}},
        "key rope_parameters.rope_theta is 5.0, but rope_theta is 10000.0",
    ),
    "a base of 1": (
        {"rope_theta": 1.0, "rope_scaling": YARN},
        "key rope_theta is 1.0, expected 1.001 to 1e+12",
    ),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_understood_names_file_and_key(
    directory: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError) as caught:
        read(directory, changes)
    text = str(caught.value)
    assert text.startswith(f"{directory}/config.json: ")
    assert message in text
    assert text.isprintable()


def test_a_head_of_its_own_beside_a_tied_one_is_a_contradiction(tmp_path: Path) -> None:
    write_tiny_hf(tmp_path, TinyShape(tied=False))
    with pytest.raises(ModelError, match="tie_word_embeddings is true, but the files have tensor lm_head"):
        read(tmp_path, {"tie_word_embeddings": True})


DAMAGED = {
    "nothing": b"",
    "a list": b"[]",
    "half": b'{"model_type": "lla',
    "nested": b'{"a":' * 50_000,
    "a key twice": b'{"model_type": "llama", "model_type": "qwen2"}',
    "not a number": b'{"rms_norm_eps": NaN}',
    "other bytes": b"\xff\xfe",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_config_is_named(directory: Path, content: bytes) -> None:
    (directory / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"config\.json: (is|has|holds) "), HfModel(directory) as model:
        read_config(model)


def test_a_qwen3_config_without_a_head_size_has_that_of_its_family(tmp_path: Path) -> None:
    write_tiny_hf(tmp_path, TinyShape(architecture="qwen3"))
    values = config_of(TinyShape(architecture="qwen3"))
    del values["head_dim"]
    write_json(tmp_path / "config.json", values)
    with HfModel(tmp_path) as model:
        assert read_config(model).head_size == 128
