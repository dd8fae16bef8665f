"""Coherence tags: 8 bytes that name a request's history without telling its tokens.

The client roots the chain and feeds it one commitment per token under a secret that only it holds;
every hop keeps the tag of its state and compares. Tags do not depend on chunking, codecs or on
who runs a stage, so they survive all three.
"""

import hmac
from collections.abc import Iterable
from hashlib import sha256

from odsi_proto.units import Position, RequestId, Tag

TAG_BYTES = 8


def root_tag(request_id: RequestId) -> Tag:
    """H_0: the tag of empty state."""
    return Tag(sha256(b"odsi/1 tag root" + request_id).digest()[:TAG_BYTES])


def token_commitment(secret: bytes, position: Position, token: int) -> bytes:
    """c_p = HMAC-SHA-256(secret, position || token), 8 bytes each, big-endian."""
    return hmac.digest(secret, position.to_bytes(8, "big") + token.to_bytes(8, "big"), "sha256")


def next_tag(tag: Tag, commitment: bytes) -> Tag:
    """H_{p+1} = the first 8 bytes of SHA-256(H_p || c_p)."""
    return Tag(sha256(tag + commitment).digest()[:TAG_BYTES])


def tag_after(tag: Tag, secret: bytes, first: Position, tokens: Iterable[int]) -> Tag:
    """The tag of state that held ``tag`` and then took ``tokens`` from position ``first`` on."""
    for offset, token in enumerate(tokens):
        tag = next_tag(tag, token_commitment(secret, Position(first + offset), token))
    return tag
