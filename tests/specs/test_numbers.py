"""Limits, constants, codecs and error codes of the documents against the code's."""

import dataclasses
import struct
from types import ModuleType

import pytest
import torch
from spec_registries import load_all
from specs.documents import tables

from odsi_proto.kernels import codecs, hf_names
from odsi_proto.kernels.hf_model import FILES_BYTES_MAX
from odsi_proto.limits import Limits
from odsi_proto.node import credit, quic
from odsi_proto.statemachine import budget
from odsi_proto.wire import cbor, codepoints, frames, identity, merkle, messages, step, tag, varint
from odsi_proto.wire.tensor import ActivationCodec, ActivationLayout, NumericProfile

MODULES: tuple[ModuleType, ...] = (varint, cbor, messages, frames, identity, merkle, tag, step, budget)
REGISTRIES = {registry.name: registry for registry in load_all()}
ENUMS = {
    "codecs": ActivationCodec,
    "numeric-profiles": NumericProfile,
    **{r.name: getattr(codepoints, r.enum) for r in REGISTRIES.values() if r.enum},
}


def test_the_limits_are_those_of_the_code() -> None:
    rows = tables("limits")[""]
    stated = {name: int(value) for name, value, *_ in rows}
    assert stated == dataclasses.asdict(Limits())


def test_the_unit_of_a_limit_is_that_of_its_name() -> None:
    units = {"us": "µs", "s": "s", "bytes": "bytes"}
    for name, _, unit, *_ in tables("limits")[""]:
        words = [word for word in name.removesuffix("_max").split("_") if word in units]
        if words:
            assert unit == units[words[-1]], name


def test_the_limits_in_a_hello_are_the_settings() -> None:
    told = {name for name, _, _, bounds, _ in tables("limits")[""] if "in HELLO" in bounds}
    assert {name.upper() for name in told} == {setting.name for setting in codepoints.Setting}


def test_the_constants_are_those_of_the_code() -> None:
    for name, value, *_ in tables("constants")[""]:
        coded = {getattr(module, name) for module in MODULES if hasattr(module, name)}
        assert coded == {int(value)}, name


@pytest.mark.parametrize("name", ENUMS)
def test_a_registry_has_the_numbers_of_the_code(name: str) -> None:
    entries = {entry.name: entry.number for entry in REGISTRIES[name].entries}
    assert entries == {member.name: int(member) for member in ENUMS[name]}


def test_every_registry_is_an_enumeration_or_known_not_to_be() -> None:
    assert set(REGISTRIES) - set(ENUMS) == {"versions", "extension-types"}


@pytest.mark.spec("WIRE-030")
def test_no_grease_number_is_registered_and_all_of_them_are_odd() -> None:
    numbers = {n for r in REGISTRIES.values() if r.grease for n in (entry.number for entry in r.entries)}
    assert not any(number % 62 == 27 for number in numbers)
    assert all(codepoints.is_ignorable(62 * n + 27) for n in range(256))


def test_the_sizes_of_rows_are_those_of_the_code() -> None:
    formulas = {"4 * width": lambda width: 4 * width, "2 + 2 * width": lambda width: 2 + 2 * width}
    rows = {name: formulas[formula] for name, formula, _ in tables("codecs")[""]}
    assert set(rows) == {codec.name for codec in ActivationCodec}
    for codec in ActivationCodec:
        for width in (1, 576, 8192):
            assert ActivationLayout(codec=codec, width=width).row_bytes == rows[codec.name](width)


def test_the_bounds_of_f16_are_those_of_the_code() -> None:
    for name, value in tables("f16")[""]:
        assert getattr(codecs, name) == int(value), name


@pytest.mark.spec("NUM-001", "NUM-002")
@pytest.mark.parametrize(("codec", "values", "digits"), tables("rows")[""])
def test_the_example_rows_are_what_the_code_writes(codec: str, values: str, digits: str) -> None:
    row = [float(value) for value in values.split(",")]
    chosen = ActivationCodec[codec]
    assert bytes(codecs.encode_rows(chosen, torch.tensor([row]))).hex() == digits
    assert codecs.decode_rows(chosen, memoryview(bytes.fromhex(digits)), len(row)).tolist() == [row]


@pytest.mark.spec("NUM-004", "NUM-006")
@pytest.mark.parametrize(
    ("exponent", "value", "fits"),
    [
        (112, 0x3C00, True),
        (113, 0x3C00, False),
        (-126, 0x3C00, True),
        (-127, 0x3C00, False),
        (0, 0x7C00, False),
    ],
)
def test_an_exponent_or_a_value_outside_the_bounds_is_malformed(
    exponent: int, value: int, fits: bool
) -> None:
    row = memoryview(struct.pack("<hHH", exponent, value, 0))
    if fits:
        codecs.decode_rows(ActivationCodec.F16, row, 2)
        return
    with pytest.raises(codecs.Malformed):
        codecs.decode_rows(ActivationCodec.F16, row, 2)


def test_the_numbers_of_quic_are_those_of_the_code() -> None:
    for name, value, _ in tables("quic")[""]:
        owner = credit if hasattr(credit, name) else quic
        assert getattr(owner, name) == int(value), name


def test_the_errors_table_has_every_code_in_order() -> None:
    assert [row[0] for row in tables("errors")[""]] == [code.name for code in codepoints.ErrorCode]


def test_the_files_of_a_model_directory_are_those_of_the_code() -> None:
    assert [name for (name,) in tables("files")[""]] == list(FILES_BYTES_MAX)


def test_the_names_of_tensors_are_those_of_the_code() -> None:
    rows = tables("names")[""]
    assert dict(row for row in rows if "layers" not in row[0]) == hf_names.OUTSIDE
    layer = {theirs.removeprefix("model.layers.N."): ours for theirs, ours in rows if "layers" in theirs}
    assert layer == {theirs: f"blk.N.{ours}" for theirs, ours in hf_names.MODULES.items()}
    assert hf_names.own_name("model.layers.7.mlp.up_proj.bias") == "blk.7.ffn_up.bias"
