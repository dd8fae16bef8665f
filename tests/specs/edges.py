"""What the CBOR tables allow each item to be, at the bound and one beyond."""

from typing import Any

import pytest
from specs.bodies import BODIES
from specs.documents import Row, arrays

ARRAYS = arrays()
WRONG = {"uint": "text", "bytes": 1, "text": b"bytes", "array": 1}
WRAPPERS = {
    ("DelegationOuter", "body"),
    ("SignedMessage", "body"),
    ("SignedMessage", "delegation"),
    ("Hello", "delegation"),
}
"""Byte strings that hold an encoding: filled up to the bound they would hold none."""


def _edges(row: Row, sample: Any) -> tuple[list[Any], list[Any]]:
    """Values at the bounds of an item, and values one beyond."""
    kind, words = row.type.split()[0], row.bound.split()
    edges: tuple[list[Any], list[Any]]
    match kind, words:
        case "uint", ["any"]:
            edges = [0, 2**64 - 1], []
        case "uint", ["always", value]:
            edges = [int(value)], [int(value) - 1, int(value) + 1]
        case "uint", ["at", "most", last]:
            edges = [int(last)], [int(last) + 1]
        case "uint", ["at", "least", first]:
            edges = [int(first), 2**64 - 1], [int(first) - 1]
        case "uint", [first, "to", last]:
            edges = [int(first), int(last)], [int(first) - 1, int(last) + 1]
        case "bytes", ["exactly", size, "bytes"]:
            edges = [sample], [sample[:-1], sample + b"\0"] if int(size) == len(sample) else []
        case "bytes", ["at", "most", size, "bytes"]:
            edges = [b"", bytes(int(size))], [bytes(int(size) + 1)]
        case "bytes", ["0", "or", size, "bytes"]:
            edges = [b"", bytes(int(size))], [b"x", bytes(int(size) - 1), bytes(int(size) + 1)]
        case "text", ["at", "most", size, "bytes"]:
            edges = ["", "x" * int(size)], ["x" * (int(size) + 1), "é" * (int(size) // 2 + 1)]
        case "array", ["at", "most", count, "items"]:
            edges = [[], sample[:1] * int(count)], [sample[:1] * (int(count) + 1)]
        case _:
            edges = [], []  # bounds that join two items have tests of their own, below
    return edges


def cases() -> list[Any]:
    """Name of the array, index of the item, value, whether it is within the bound."""
    found = []
    for name, rows in ARRAYS.items():
        for index, row in enumerate(rows):
            inside, outside = _edges(row, BODIES[name].items[index])
            if (name, row.field) in WRAPPERS:
                inside = []
            outside = [*outside, WRONG[row.type.split()[0]]]
            for fits, values in ((True, inside), (False, outside)):
                for at, value in enumerate(values):
                    label = f"{name}.{row.field}-{'in' if fits else 'out'}-{at}"
                    found.append(pytest.param(name, index, value, fits, id=label))
    return found
