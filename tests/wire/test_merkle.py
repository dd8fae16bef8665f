"""Merkle trees against RFC 6962's definition and its published example."""

from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odsi_proto.wire import merkle

# Certificate Transparency's reference leaves with the roots of the trees of the first n of them
# (transparency-dev/merkle, testonly/constants.go).
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def hashes(count: int) -> list[bytes]:
    return [merkle.leaf_hash(bytes([index])) for index in range(count)]


def plain_root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word: k is the largest power of two smaller than n."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = max(2**i for i in range(20) if 2**i < len(leaves))
    return sha256(b"\x01" + plain_root(leaves[:k]) + plain_root(leaves[k:])).digest()


@pytest.mark.parametrize("count", range(1, 9))
def test_roots_equal_those_of_certificate_transparency(count: int) -> None:
    assert merkle.root([merkle.leaf_hash(leaf) for leaf in LEAVES[:count]]).hex() == ROOTS[count - 1]


def test_the_root_of_nothing_is_the_hash_of_nothing() -> None:
    assert merkle.root([]) == sha256(b"").digest()


@given(st.lists(st.binary(max_size=8), max_size=40))
def test_roots_equal_the_definition(leaves: list[bytes]) -> None:
    assert merkle.root([merkle.leaf_hash(leaf) for leaf in leaves]) == plain_root(leaves)


@given(st.integers(1, 70), st.data())
def test_a_leaf_proves_itself(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    leaves = hashes(size)
    proof = merkle.inclusion_proof(leaves, index)
    assert merkle.root_from_proof(leaves[index], index=index, size=size, proof=proof) == merkle.root(leaves)


@given(st.integers(2, 70), st.data())
def test_a_leaf_does_not_prove_itself_anywhere_else(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    other = data.draw(st.integers(0, size - 1).filter(lambda value: value != index))
    leaves = hashes(size)
    proof = merkle.inclusion_proof(leaves, index)
    assert merkle.root_from_proof(leaves[index], index=other, size=size, proof=proof) != merkle.root(leaves)


@pytest.mark.parametrize(("index", "size"), [(-1, 4), (4, 4), (0, 0)])
def test_a_place_outside_the_tree_has_no_root(index: int, size: int) -> None:
    assert merkle.root_from_proof(hashes(1)[0], index=index, size=size, proof=hashes(2)) is None


@pytest.mark.parametrize("length", [0, 1, 3, 4])
def test_a_proof_of_another_length_has_no_root(length: int) -> None:
    assert merkle.root_from_proof(hashes(4)[0], index=0, size=4, proof=hashes(length)) is None
