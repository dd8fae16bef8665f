"""The CBOR tables of parts 01 and 03, item by item and bound by bound, against the bodies' code."""

import dataclasses
from typing import Any

import pytest
from specs.bodies import BODIES, DELEGATION
from specs.edges import ARRAYS, cases

from odsi_proto.errors import Malformed
from odsi_proto.units import LayerRange

MAJOR_TYPES = {"uint": int, "bytes": bytes, "text": str, "array": list}


def _field(value: Any, name: str) -> Any:
    if isinstance(getattr(value, "layers", None), LayerRange) and name in {"layers_first", "layers_end"}:
        return getattr(value.layers, name.removeprefix("layers_"))
    return getattr(value, name)


def _names(value: Any) -> list[str]:
    names: list[str] = []
    for field in dataclasses.fields(value):
        names += ["layers_first", "layers_end"] if field.name == "layers" else [field.name]
    return [name for name in names if value is not DELEGATION or name != "signature"]


def test_every_array_has_one_table() -> None:
    assert set(ARRAYS) == set(BODIES)


@pytest.mark.parametrize("name", [name for name, body in BODIES.items() if body.value is not None])
def test_the_table_lists_the_fields_in_the_order_of_the_code(name: str) -> None:
    body = BODIES[name]
    assert [row.field for row in ARRAYS[name]] == [*body.constants, *_names(body.value)]


@pytest.mark.parametrize("name", ARRAYS)
def test_every_item_of_the_encoding_is_the_field_that_the_table_says(name: str) -> None:
    body, rows = BODIES[name], ARRAYS[name]
    assert len(body.items) == len(rows)
    for row, item in zip(rows, body.items, strict=True):
        kind = row.type.split()[0]
        assert type(item) is MAJOR_TYPES[kind], row.field
        if kind != "array" and body.value is not None and row.field not in body.constants:
            value = _field(body.value, row.field)
            assert item == (value.encode() if row.field == "delegation" else value), row.field


@pytest.mark.parametrize(("name", "index", "value", "fits"), cases())
def test_the_code_accepts_up_to_the_bound_and_nothing_beyond(
    name: str, index: int, value: Any, fits: bool
) -> None:
    items = list(BODIES[name].items)
    items[index] = value
    if fits:
        BODIES[name].read(items)
        return
    with pytest.raises(Malformed):
        BODIES[name].read(items)


@pytest.mark.spec("CBOR-004")
@pytest.mark.parametrize("name", BODIES)
def test_an_item_less_or_more_is_malformed(name: str) -> None:
    body = BODIES[name]
    for items in (body.items[:-1], [*body.items, 0], []):
        with pytest.raises(Malformed):
            body.read(items)


@pytest.mark.parametrize(
    "name", [n for n, rows in ARRAYS.items() if any(r.field == "layers_first" for r in rows)]
)
def test_layers_begin_below_their_end(name: str) -> None:
    rows = ARRAYS[name]
    first = next(i for i, row in enumerate(rows) if row.field == "layers_first")
    assert rows[first].bound == "below layers_end"
    items = list(BODIES[name].items)
    items[first : first + 2] = [4095, 4096]
    BODIES[name].read(items)
    items[first] = 4096
    with pytest.raises(Malformed):
        BODIES[name].read(items)


@pytest.mark.spec("REQ-040")
def test_an_open_has_one_codec_more_than_stages() -> None:
    rows = {row.field: (index, row) for index, row in enumerate(ARRAYS["Open"])}
    (stages, row), (codecs, codecs_row) = rows["stages"], rows["codecs"]
    assert (row.bound, codecs_row.bound) == ("1 to 64 items", "one more than stages")
    for count, codecs_count, fits in (
        (1, 2, True),
        (64, 65, True),
        (0, 1, False),
        (65, 66, False),
        (2, 2, False),
    ):
        items = list(BODIES["Open"].items)
        items[stages] = items[stages] * count
        items[codecs] = [1] * codecs_count
        if fits:
            BODIES["Open"].read(items)
        else:
            with pytest.raises(Malformed):
                BODIES["Open"].read(items)
