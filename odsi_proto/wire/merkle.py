"""Merkle trees as RFC 6962 section 2.1 defines them, over SHA-256.

Leaves and nodes are hashed with different prefixes, so neither can be passed for the other, and a
tree of n leaves has one shape.
"""

from collections.abc import Sequence
from hashlib import sha256

DIGEST_BYTES = 32


def leaf_hash(leaf: bytes) -> bytes:
    """The hash of one leaf's bytes."""
    return sha256(b"\x00" + leaf).digest()


def root(leaf_hashes: Sequence[bytes]) -> bytes:
    """The root over leaf hashes in order; of none, the hash of nothing."""
    if not leaf_hashes:
        return sha256().digest()
    if len(leaf_hashes) == 1:
        return leaf_hashes[0]
    split = _split(len(leaf_hashes))
    return _node_hash(root(leaf_hashes[:split]), root(leaf_hashes[split:]))


def inclusion_proof(leaf_hashes: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The sibling hashes from leaf ``index`` up to the root."""
    if len(leaf_hashes) <= 1:
        return ()
    split = _split(len(leaf_hashes))
    left, right = leaf_hashes[:split], leaf_hashes[split:]
    if index < split:
        return (*inclusion_proof(left, index), root(right))
    return (*inclusion_proof(right, index - split), root(left))


def root_from_proof(leaf: bytes, *, index: int, size: int, proof: Sequence[bytes]) -> bytes | None:
    """The root that ``leaf`` at ``index`` of ``size`` leads to; None for a proof of another length."""
    if not 0 <= index < size:
        return None
    if size == 1:
        return leaf if not proof else None
    if not proof:
        return None
    split = _split(size)
    *below, sibling = proof
    if index < split:
        left = root_from_proof(leaf, index=index, size=split, proof=below)
        return None if left is None else _node_hash(left, sibling)
    right = root_from_proof(leaf, index=index - split, size=size - split, proof=below)
    return None if right is None else _node_hash(sibling, right)


def _node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def _split(size: int) -> int:
    """The largest power of two below ``size``."""
    return 1 << ((size - 1).bit_length() - 1)
