"""Writes ``specs/vectors/*.json``, all but ``anchors.json``, which is written by hand.

The same every time: seeds and cases are fixed. ``--check`` writes nothing and fails when a file
differs. What is expected is computed by this project's code; the anchors, and the numerics, which
are computed here with ``struct`` alone, are what that code is held against.
"""

import json
import math
import struct
import sys
from pathlib import Path
from typing import Any

import vectors_clients
import vectors_deadlines
import vectors_requests
import vectors_sessions
import vectors_steps
from vectors_codec import codec_vectors
from vectors_samples import CANCEL, COMMIT, HELLO, IDENTITY, OPEN, OTHER_HELLO, OTHER_IDENTITY

from odsi_proto.testing.vector_machines import signer_of
from odsi_proto.testing.vector_values import plain
from odsi_proto.testing.vectors import FORMAT, tags, transcript
from odsi_proto.wire.messages import Cancel

DIRECTORY = Path(__file__).resolve().parent.parent / "specs" / "vectors"
F16_MAX = 65_504.0
EXPONENT_MAX = 112

Case = dict[str, Any]


def main() -> int:
    """Write or check; the exit status."""
    files = {
        **codec_vectors(),
        "transcripts": ("transcript", transcript_vectors()),
        "tags": ("tag", tag_vectors()),
        "numerics": ("numerics", numerics_vectors()),
        "machine-sessions": ("machine", vectors_sessions.vectors()),
        "machine-requests": ("machine", vectors_requests.vectors()),
        "machine-steps": ("machine", vectors_steps.vectors()),
        "machine-clients": ("machine", vectors_clients.vectors()),
        "machine-deadlines": ("machine", vectors_deadlines.vectors()),
    }
    stale = []
    for name, (kind, vectors) in files.items():
        path, text = DIRECTORY / f"{name}.json", rendered(kind, vectors)
        if "--check" in sys.argv[1:]:
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                stale.append(path.name)
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        sys.stderr.write(f"tools/generate_vectors.py writes something else to: {', '.join(stale)}\n")
    return bool(stale)


def rendered(kind: str, vectors: list[Case]) -> str:
    """The file's text: one vector a line, so that a changed vector is a changed line."""
    head = {"format": FORMAT, "kind": kind, "origin": "tools/generate_vectors.py"}
    lines = [f'"{key}": {json.dumps(value)},' for key, value in head.items()]
    rows = ",\n".join(json.dumps(vector, ensure_ascii=True) for vector in vectors)
    return "\n".join(["{", *lines, '"vectors": [', rows, "]", "}", ""])


def transcript_vectors() -> list[Case]:
    """A delegation, every kind of signed body, and AUTH from both sides."""
    validity = {"epoch": 1, "not_before_s": 0, "not_after_s": 1 << 40}
    late = {"epoch": 2**64 - 1, "not_before_s": 1, "not_after_s": 2**53 - 1}
    given: list[Case] = [
        {"name": "delegation", "statement": "delegation", "fields": validity, **seeds(IDENTITY)},
        {
            "name": "delegation-of-the-last-epoch",
            "statement": "delegation",
            "fields": {**late, "scope": "é" * 16, "revocation_sequence": 7},
            **seeds(OTHER_IDENTITY),
        },
    ]
    delegation = signer_of(IDENTITY).delegation.encode().hex()
    done = Cancel(request_id=CANCEL.request_id, lineage=CANCEL.lineage, code=0)
    bodies = [("open", OPEN), ("commit", COMMIT), ("cancel", CANCEL), ("cancel", done)]
    for index, (statement, body) in enumerate(bodies):
        given.append(
            {
                "name": f"{statement}-{index}",
                "statement": statement,
                "hot_seed": IDENTITY["hot_seed"],
                "delegation": delegation,
                "body": body.encode().hex(),
            }
        )
    for speaker, identity in (("dialler", IDENTITY), ("acceptor", OTHER_IDENTITY)):
        given.append(
            {
                "name": f"auth-of-the-{speaker}",
                "statement": "auth",
                "speaker": speaker,
                "hot_seed": identity["hot_seed"],
                "dialler_hello": HELLO.encode().hex(),
                "acceptor_hello": OTHER_HELLO.encode().hex(),
                "acceptor_certificate_sha256": OTHER_HELLO.certificate_sha256.hex(),
            }
        )
    return [jsonable(transcript(case)) for case in given]


def jsonable(case: Case) -> Case:
    """Large integers as text."""
    return {key: jsonable(value) if isinstance(value, dict) else plain(value) for key, value in case.items()}


def seeds(identity: Case) -> Case:
    """What makes the two keys."""
    return {name: identity[name] for name in ("cold_seed", "hot_seed")}


def tag_vectors() -> list[Case]:
    """Chains of tags."""
    request, secret = bytes(range(16)).hex(), bytes(range(32)).hex()
    cases = [
        ("no-tokens", request, secret, []),
        ("one-token", request, secret, [0]),
        ("five-tokens", request, secret, [1, 2, 3, 49_151, 2**32 - 1]),
        ("repeated-tokens", request, secret, [7, 7, 7]),
        ("another-request", "ff" * 16, secret, [1, 2, 3]),
        ("another-secret", request, "00" * 32, [1, 2, 3]),
    ]
    return [
        tags({"name": name, "request_id": request_id, "secret": key, "tokens": tokens})
        for name, request_id, key, tokens in cases
    ]


SUBNORMAL_F16, LARGEST_F32 = 2.0**-24, (2 - 2**-23) * 2.0**127
ROWS: list[tuple[str, list[float]]] = [
    ("zeros", [0.0, -0.0, 0.0]),
    ("small-integers", [1.0, -2.0, 3.0]),
    ("not-exact-in-f16", [0.1, math.pi, -1e-3]),
    ("ties-to-even-in-f16", [2049.0, 2051.0, 1 + 2.0**-11]),
    ("f16-subnormals", [SUBNORMAL_F16, 1023 * SUBNORMAL_F16, SUBNORMAL_F16 / 2]),
    ("below-f16", [2.0**-26, -(2.0**-30), 2.0**-149]),
    ("f16-maximum", [F16_MAX, -F16_MAX, 1.0]),
    ("one-above-f16-maximum", [65_505.0, 1.0, 0.0]),
    ("rounds-to-f16-maximum-without-scale", [65_519.0, 0.0, 0.0]),
    ("exponent-of-1", [2 * F16_MAX, 3.0, 2.0**-24]),
    ("exponent-of-5", [2_000_000.0, -1_234_567.0, 1.0]),
    ("largest-that-f16-holds", [F16_MAX * 2.0**EXPONENT_MAX, 1.0, 0.0]),
    ("too-large-for-f16", [F16_MAX * 2.0**EXPONENT_MAX * (1 + 2.0**-11), 1.0, 0.0]),
    ("f32-maximum", [LARGEST_F32, -LARGEST_F32, 2.0**-149]),
    ("infinity", [math.inf, 0.0, 0.0]),
    ("minus-infinity", [0.0, -math.inf, 0.0]),
    ("not-a-number", [0.0, 0.0, math.nan]),
]


def numerics_vectors() -> list[Case]:
    """Rows in both codecs, two rows with different exponents, and payloads that no sender makes."""
    vectors = [
        numerics(f"{codec_name}-{name}", codec, [row])
        for codec, codec_name in ((1, "f32"), (2, "f16"))
        for name, row in ROWS
    ]
    mixed = [[1.0, 2.0, 3.0], [1e9, -1e9, 1.0], [0.0, 0.0, 0.5]]
    vectors.append(numerics("f16-rows-with-different-exponents", 2, mixed))
    refused = [
        ("f32-payload-with-infinity", 1, "0000807f" + "00" * 8),
        ("f32-payload-with-not-a-number", 1, "0000c07f" + "00" * 8),
        ("f32-payload-cut", 1, "00" * 11),
        ("f32-payload-empty", 1, ""),
        ("f16-payload-with-infinity", 2, "0000007c00000000"),
        ("f16-payload-with-not-a-number", 2, "0000007e00000000"),
        ("f16-payload-with-exponent-113", 2, "7100003c00000000"),
        ("f16-payload-with-exponent-minus-127", 2, "81ff003c00000000"),
        ("f16-payload-cut", 2, "00" * 7),
        ("f16-payload-with-a-row-and-a-byte", 2, "00" * 9),
    ]
    for name, codec, payload in refused:
        vectors.append({"name": name, "codec": codec, "width": 3, "payload": payload, "decoded": "malformed"})
    for name, exponent, value in (("112", 112, 1.0), ("minus-126", -126, 1.0), ("minus-3", -3, 4.0)):
        payload = struct.pack("<h3e", exponent, value, 0.0, -value)
        decoded = [[bits(v * 2.0**exponent) for v in (value, 0.0, -value)]]
        vectors.append(
            {
                "name": f"f16-payload-with-exponent-{name}",
                "codec": 2,
                "width": 3,
                "payload": payload.hex(),
                "decoded": decoded,
            }
        )
    return vectors


def numerics(name: str, codec: int, rows: list[list[float]]) -> Case:
    """One encoding and what it decodes to, computed with ``struct`` alone."""
    rows = [[struct.unpack("<f", struct.pack("<f", value))[0] for value in row] for row in rows]
    head = {
        "name": name,
        "codec": codec,
        "width": len(rows[0]),
        "rows": [list(map(bits, row)) for row in rows],
    }
    peaks = [max(math.inf if math.isnan(value) else abs(value) for value in row) for row in rows]
    exponents = [0 if codec == 1 else exponent_of(peak) for peak in peaks]
    if not all(map(math.isfinite, peaks)) or max(exponents) > EXPONENT_MAX:
        return {**head, "payload": "refused"}
    payload, decoded = b"", []
    for row, exponent in zip(rows, exponents, strict=True):
        if codec == 1:
            payload += struct.pack("<3f", *row)
            decoded.append([bits(value) for value in row])
            continue
        halves = struct.pack("<3e", *(value / 2.0**exponent for value in row))
        payload += struct.pack("<h", exponent) + halves
        decoded.append([bits(half * 2.0**exponent) for half in struct.unpack("<3e", halves)])
    return {**head, "payload": payload.hex(), "decoded": decoded}


def exponent_of(peak: float) -> int:
    """The smallest e, not below 0, with peak <= 65504 * 2**e."""
    if not math.isfinite(peak):
        return 0
    return next(e for e in range(256) if peak <= F16_MAX * 2.0**e)


def bits(value: float) -> str:
    """A binary32 as its eight hexadecimal digits, sign first."""
    return struct.pack(">f", value).hex()


if __name__ == "__main__":
    sys.exit(main())
