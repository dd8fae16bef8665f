"""Runs the test vectors of the specification (``specs/vectors``; its README explains the format).

Other implementations run the same files. :func:`load` reads them, :func:`check` says what is wrong
with this implementation by one vector: nothing, one hopes.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

from nacl.signing import SigningKey

import odsi_proto
from odsi_proto.errors import ConfigError, Incomplete, Malformed, ModelError
from odsi_proto.testing.vector_machines import Machine
from odsi_proto.testing.vector_values import plain
from odsi_proto.units import ParticipantId, Position, RequestId, Tag
from odsi_proto.wire import cbor
from odsi_proto.wire.codepoints import StreamType
from odsi_proto.wire.frames import decode_frame, encode_frame
from odsi_proto.wire.identity import Delegation, SignedMessage, signature_is_valid, transcript_digest
from odsi_proto.wire.messages import Cancel, Commit, Hello, Open, auth_body
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.tag import next_tag, root_tag, token_commitment
from odsi_proto.wire.varint import Cursor, encode_varint

FORMAT = "odsi-vectors/1"
FRAME_BYTES_MAX = 65_536
"""The bound on frames in vectors: ``control_frame_bytes_max``."""

Data: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """One case."""

    name: str
    """Unique over all files: ``file/name``."""
    kind: str
    """How it is run: ``codec``, ``transcript``, ``tag``, ``numerics`` or ``machine``."""
    data: Data


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """How one kind of bytes is read and written."""

    read: Callable[[bytes, Data], tuple[object, int]]
    """From the bytes and their vector to the value and where it ended."""
    write: Callable[[Any], bytes]
    is_streamed: bool
    """Whether its end is told by its own bytes, so that a proper prefix is incomplete."""


def default_directory() -> Path:
    """Where the vectors are: beside the sources, or in the installed package."""
    package = Path(odsi_proto.__file__).parent
    places = (package.parent / "specs" / "vectors", package / "_vectors")
    for place in places:
        if (place / "schema.json").is_file():
            return place
    raise ConfigError(f"no test vectors in {places[0]} or {places[1]}: name their directory with --dir")


def load(directory: Path) -> tuple[Vector, ...]:
    """All vectors in ``directory``; raises ``ConfigError``."""
    found: dict[str, Vector] = {}
    for file in sorted(directory.glob("*.json")):
        if file.name == "schema.json":
            continue
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ConfigError(f"{file}: format {content['format']!r}, expected {FORMAT!r}")
            kind = content["kind"]
            for data in content["vectors"]:
                name = f"{file.stem}/{data['name']}"
                if name in found:
                    raise ConfigError(f"{file}: two vectors are called {data['name']!r}")
                found[name] = Vector(name=name, kind=kind, data=data)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{file}: not a file of vectors: {error!r}") from error
    if not found:
        raise ConfigError(f"{directory}: no test vectors are here")
    return tuple(found.values())


def check(vector: Vector) -> tuple[str, ...]:
    """What this implementation does otherwise than ``vector`` says; nothing if it passes."""
    runner = RUNNERS.get(vector.kind)
    if runner is None:
        return (f"vectors of kind {vector.kind!r} are not known here",)
    return tuple(runner(vector.data))


def _codec(data: Data) -> Iterator[str]:
    codec, raw = CODECS[data["codec"]], bytes.fromhex(data["bytes"])
    if not data["valid"]:
        if (error := _error_of(codec, raw, data)) != data["error"]:
            yield f"{error or 'accepted'}, expected {data['error']}"
        return
    try:
        value, end = codec.read(raw, data)
    except (Malformed, Incomplete) as error:
        yield f"refused: {error}"
        return
    yield from _difference(plain(value), data["value"], "value")
    if end != len(raw):
        yield f"{len(raw) - end} bytes are left"
    if data.get("canonical", True) and codec.write(value) != raw:
        yield f"written as {codec.write(value).hex()}"
    expected = "incomplete" if codec.is_streamed else "malformed"
    for size in range(len(raw)):
        if (cut := _error_of(codec, raw[:size], data)) != expected:
            yield f"cut to {size} bytes: {cut or 'accepted'}, expected {expected}"


def _error_of(codec: Codec, raw: bytes, data: Data) -> str:
    try:
        _, end = codec.read(raw, data)
    except Malformed:
        return "malformed"
    except Incomplete:
        return "incomplete"
    return "" if end == len(raw) else "trailing"


def _read_varint(raw: bytes, data: Data) -> tuple[object, int]:
    cursor = Cursor(raw)
    return cursor.varint(), cursor.at


def _read_step(raw: bytes, data: Data) -> tuple[object, int]:
    cursor = Cursor(raw)
    if cursor.varint() != StreamType.STEP:
        raise Malformed("not a step stream")
    return StepHeader.decode(cursor), cursor.at


def _read_frame(raw: bytes, data: Data) -> tuple[object, int]:
    cursor = Cursor(raw)
    return decode_frame(cursor, payload_bytes_max=FRAME_BYTES_MAX), cursor.at


def _whole(decode: Callable[[bytes], object]) -> Callable[[bytes, Data], tuple[object, int]]:
    return lambda raw, _: (decode(raw), len(raw))


def _body(decode: Callable[[bytes], object]) -> Codec:
    return Codec(read=_whole(decode), write=lambda value: bytes(value.encode()), is_streamed=False)


CODECS: Mapping[str, Codec] = {
    "varint": Codec(read=_read_varint, write=encode_varint, is_streamed=True),
    "step_header": Codec(read=_read_step, write=StepHeader.encode, is_streamed=True),
    "frame": Codec(read=_read_frame, write=encode_frame, is_streamed=True),
    "cbor": Codec(read=_whole(cbor.decode), write=cbor.encode, is_streamed=False),
    "hello": _body(Hello.decode),
    "open": _body(Open.decode),
    "commit": _body(Commit.decode),
    "cancel": _body(Cancel.decode),
    "delegation": _body(Delegation.decode),
    "signed_message": Codec(
        read=lambda raw, data: (SignedMessage.decode(data["domain"], raw), len(raw)),
        write=SignedMessage.encode,
        is_streamed=False,
    ),
}


def _transcript(data: Data) -> Iterator[str]:
    yield from _difference(transcript(data), data, "")


def transcript(data: Data) -> dict[str, Any]:
    """The vector with every intermediate value computed anew from its inputs."""
    match data["statement"]:
        case "delegation":
            return _delegation_transcript(data)
        case "auth":
            return _auth_transcript(data)
        case _:
            return _signed_transcript(data)


def _delegation_transcript(data: Data) -> dict[str, Any]:
    cold, hot = _key(data, "cold_seed"), _key(data, "hot_seed")
    given: dict[str, Any] = {
        name: value if name == "scope" else int(value) for name, value in data["fields"].items()
    }
    delegation = Delegation.issue(cold, hot_key=bytes(hot.verify_key), **given)
    body = _octets(cbor.decode(delegation.encode()), 0)
    signed = _signature("delegation", delegation.participant, delegation.epoch, body, cold)
    return {
        **_inputs(data, "name", "statement", "cold_seed", "hot_seed", "fields"),
        "participant": delegation.participant.hex(),
        "hot_key": delegation.hot_key.hex(),
        "body": body.hex(),
        **signed,
        "encoded": delegation.encode().hex(),
    }


def _signed_transcript(data: Data) -> dict[str, Any]:
    hot, body = _key(data, "hot_seed"), bytes.fromhex(data["body"])
    delegation = Delegation.decode(bytes.fromhex(data["delegation"]))
    signed = _signature(data["statement"], delegation.participant, delegation.epoch, body, hot)
    signature = bytes.fromhex(signed["signature"])
    message = SignedMessage(domain=data["statement"], body=body, delegation=delegation, signature=signature)
    return {
        **_inputs(data, "name", "statement", "hot_seed", "delegation", "body"),
        **signed,
        "encoded": message.encode().hex(),
    }


def _auth_transcript(data: Data) -> dict[str, Any]:
    dialler, acceptor = bytes.fromhex(data["dialler_hello"]), bytes.fromhex(data["acceptor_hello"])
    is_dialler = data["speaker"] == "dialler"
    body = auth_body(
        dialler_hello=dialler,
        acceptor_hello=acceptor,
        acceptor_certificate_sha256=bytes.fromhex(data["acceptor_certificate_sha256"]),
        is_dialler=is_dialler,
    )
    delegation = Hello.decode(dialler if is_dialler else acceptor).delegation
    names = ("name", "statement", "speaker", "hot_seed", "dialler_hello", "acceptor_hello")
    return {
        **_inputs(data, *names, "acceptor_certificate_sha256"),
        "dialler_hello_sha256": sha256(dialler).hexdigest(),
        "acceptor_hello_sha256": sha256(acceptor).hexdigest(),
        "body": body.hex(),
        **_signature("auth", delegation.participant, delegation.epoch, body, _key(data, "hot_seed")),
    }


def _signature(
    domain: str, participant: ParticipantId, epoch: int, body: bytes, key: SigningKey
) -> dict[str, str]:
    name = domain.encode()
    preimage = b"odsi/1" + bytes([len(name)]) + name + participant + epoch.to_bytes(8, "big") + body
    digest = transcript_digest(domain, participant, epoch, body)
    assert digest == sha256(preimage).digest()
    signature = bytes(key.sign(digest).signature)
    assert signature_is_valid(bytes(key.verify_key), digest, signature)
    return {"preimage": preimage.hex(), "digest": digest.hex(), "signature": signature.hex()}


def _tag(data: Data) -> Iterator[str]:
    yield from _difference(tags(data), data, "")


def tags(data: Data) -> dict[str, Any]:
    """The vector with its chain of tags computed anew."""
    secret = bytes.fromhex(data["secret"])
    tag = root_tag(RequestId(bytes.fromhex(data["request_id"])))
    answer = {**_inputs(data, "name", "request_id", "secret", "tokens"), "root": tag.hex()}
    chain = []
    for position, token in enumerate(data["tokens"]):
        commitment = token_commitment(secret, Position(position), token)
        tag = Tag(next_tag(tag, commitment))
        chain.append({"commitment": commitment.hex(), "tag": tag.hex()})
    return {**answer, "chain": chain}


def _numerics(data: Data) -> Iterator[str]:
    # Imported here: torch takes seconds, and only these vectors need it.
    import torch  # noqa: PLC0415

    from odsi_proto.kernels.codecs import decode_rows, encode_rows  # noqa: PLC0415
    from odsi_proto.wire.tensor import ActivationCodec  # noqa: PLC0415

    codec, width = ActivationCodec(data["codec"]), data["width"]
    if "rows" in data:
        bits = b"".join(bytes.fromhex(value)[::-1] for row in data["rows"] for value in row)
        rows = torch.frombuffer(bytearray(bits), dtype=torch.float32).view(-1, width)
        try:
            encoded = bytes(encode_rows(codec, rows)).hex()
        except ModelError:
            encoded = "refused"
        yield from _difference(encoded, data["payload"], "payload")
    if data["payload"] == "refused":
        return
    try:
        values = decode_rows(codec, memoryview(bytes.fromhex(data["payload"])), width)
    except Malformed:
        decoded: object = "malformed"
    else:
        decoded = [[value.tobytes()[::-1].hex() for value in row] for row in values.numpy()]
    yield from _difference(decoded, data["decoded"], "decoded")


def _machine(data: Data) -> Iterator[str]:
    machine = Machine(data["configuration"])
    for index, step in enumerate(data["steps"]):
        effects = machine.apply(step["now"], step["input"])
        yield from _difference(effects, step["effects"], f"steps[{index}].effects")


RUNNERS: Mapping[str, Callable[[Data], Iterator[str]]] = {
    "codec": _codec,
    "transcript": _transcript,
    "tag": _tag,
    "numerics": _numerics,
    "machine": _machine,
}


def _difference(found: Any, expected: Any, where: str) -> Iterator[str]:
    """The first place in which two JSON values differ."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in (*expected, *(key for key in found if key not in expected)):
            if key in {"spec", "why"}:
                continue
            if found.get(key) != expected.get(key):
                yield from _difference(found.get(key), expected.get(key), f"{where}.{key}".lstrip("."))
                return
    elif isinstance(found, Sequence) and isinstance(expected, Sequence) and not isinstance(found, str):
        for index, (one, other) in enumerate(zip(found, expected, strict=False)):
            if one != other:
                yield from _difference(one, other, f"{where}[{index}]")
                return
        if len(found) != len(expected):
            yield f"{where}: {len(found)} items, expected {len(expected)}"
    elif found != expected:
        yield f"{where}: {json.dumps(found)}, expected {json.dumps(expected)}"


def _inputs(data: Data, *names: str) -> dict[str, Any]:
    return {name: data[name] for name in names}


def _key(data: Data, name: str) -> SigningKey:
    return SigningKey(bytes.fromhex(data[name]))


def _octets(value: cbor.Value, index: int) -> bytes:
    assert isinstance(value, tuple)
    item = value[index]
    assert isinstance(item, bytes)
    return item
