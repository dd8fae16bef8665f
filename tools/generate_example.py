"""From the running code and fixed keys: the bytes of specs/09, one whole session of client and stage.

The two endpoints talk over a network in memory. What they send is written down as it was sent, and
beside it what it was made from, computed from the parts.
"""

import struct
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from nacl.signing import SigningKey
from spec_markers import SPECS, between_markers, main

from odsi_proto.limits import Limits
from odsi_proto.statemachine.admission import StageOffer
from odsi_proto.statemachine.claim import RequestSpec
from odsi_proto.statemachine.client import ClientEndpoint
from odsi_proto.statemachine.effects import Run, SendControl, SendStep
from odsi_proto.statemachine.endpoint import Endpoint
from odsi_proto.statemachine.session import SelfDescription
from odsi_proto.statemachine.stage import StageEndpoint
from odsi_proto.testing import MemoryNetwork
from odsi_proto.units import LayerRange, Micros, Position, RequestId
from odsi_proto.wire import cbor
from odsi_proto.wire.codepoints import ErrorCode, FrameType, LateAction, Role
from odsi_proto.wire.fields import Reader
from odsi_proto.wire.frames import AuthFrame, CommitFrame, Frame, HelloFrame, OpenFrame, decode_frame
from odsi_proto.wire.identity import Delegation, SignedMessage, Signer, participant_text, transcript_digest
from odsi_proto.wire.messages import Offer, StagePlan, auth_body
from odsi_proto.wire.tag import next_tag, root_tag, token_commitment
from odsi_proto.wire.tensor import ActivationCodec, NumericProfile
from odsi_proto.wire.varint import Cursor

DOCUMENT = SPECS / "09-example.md"
UNIX_S = 1_800_000_000
LAYERS = LayerRange(0, 2)
MODEL_ROOT = bytes(range(32))
CERTIFICATE = bytes(32)
TOKENS = (7, 11, 13)
ROWS = {7: (1.0, -2.5), 11: (0.5, 4.0), 13: (-1.0, 8.0)}


def outputs() -> dict[Path, str]:
    """The document with its bytes."""
    session = Session()
    blocks = {**_identities(session), **_handshake(session), **_request(session), **_steps(session)}
    shown = {f"example {name}": _code(lines) for name, lines in blocks.items()}
    return {DOCUMENT: between_markers(DOCUMENT, shown)}


class Session:
    """A client and one stage, from their first to their last byte."""

    def __init__(self) -> None:
        self.client_signer, self.stage_signer = signer(1), signer(3)
        self.client, self.stage = _client(self.client_signer), _stage(self.stage_signer)
        self.network = MemoryNetwork()
        self.network.add(self.client)
        self.network.add(self.stage, compute=double)
        key = bytes(self.stage_signer.hot_key.verify_key)
        self.connection, _ = self.network.connect(
            self.client, self.stage, acceptor_key=key, expected=self.stage_signer.participant
        )
        self._settle()
        self.request = self.client.new_request_id()
        effects = self.client.open(
            self.request,
            _spec(self.stage_signer),
            first=self.connection,
            last=self.connection,
            now=self.network.now,
        )
        self.network.perform(self.client, effects)
        self._settle()
        for tokens in (TOKENS[:2], TOKENS[2:]):
            rows = memoryview(b"".join(struct.pack("<2f", *ROWS[token]) for token in tokens))
            effects = self.client.send_step(self.request, tokens, rows, now=self.network.now)
            self.network.perform(self.client, effects)
            self._settle()
        effects = self.client.cancel(self.request, ErrorCode.NO_ERROR, now=self.network.now)
        self.network.perform(self.client, effects)
        self._settle()
        self.from_client, self.from_stage = self._frames(self.client), self._frames(self.stage)

    def steps(self, endpoint: Endpoint) -> list[SendStep]:
        """What an endpoint sent on step streams."""
        return [e for e in self.network.effects(endpoint) if isinstance(e, SendStep)]

    def control(self, endpoint: Endpoint) -> bytes:
        """What an endpoint sent on its control stream."""
        sent = [e.data for e in self.network.effects(endpoint) if isinstance(e, SendControl)]
        return b"".join(sent)

    def _frames(self, endpoint: Endpoint) -> list[tuple[Frame, bytes]]:
        data = self.control(endpoint)
        cursor, frames = Cursor(data, 1), []
        while cursor.left:
            start = cursor.at
            frame = decode_frame(cursor, payload_bytes_max=65_536)
            frames.append((frame, data[start : cursor.at]))
        return frames

    def _settle(self) -> None:
        self.network.run(until=Micros(self.network.now + 20_000))


def signer(fill: int) -> Signer:
    """A participant whose secrets are 32 bytes of ``fill`` and of ``fill`` + 1."""
    cold, hot = SigningKey(bytes([fill]) * 32), SigningKey(bytes([fill + 1]) * 32)
    delegation = Delegation.issue(
        cold,
        hot_key=bytes(hot.verify_key),
        epoch=1,
        not_before_s=UNIX_S,
        not_after_s=UNIX_S + 30 * 86_400,
    )
    return Signer(hot_key=hot, delegation=delegation)


def counting(first: int) -> Callable[[int], bytes]:
    """Instead of random bytes: the first draw is all ``first``, the next all ``first`` + 1, and so on."""
    draws = iter(range(first, 256))
    return lambda count: bytes([next(draws)]) * count


def double(run: Run) -> bytes:
    """An executor that doubles every number, and returns the last rows asked for."""
    values = struct.unpack(f"<{len(run.payload) // 4}f", run.payload)
    wanted = values[-2 * run.rows_out_max :]
    return struct.pack(f"<{len(wanted)}f", *(2 * value for value in wanted))


def _client(by: Signer) -> ClientEndpoint:
    return ClientEndpoint(
        about=SelfDescription(signer=by, roles=(Role.CLIENT,)),
        limits=Limits(),
        choices=counting(0xA0),
        unix_s_at_zero=UNIX_S,
    )


def _stage(by: Signer) -> StageEndpoint:
    offer = StageOffer(layers=LAYERS, model_root=MODEL_ROOT, width=2, positions_max=64)
    return StageEndpoint(
        about=SelfDescription(
            signer=by, roles=(Role.EXECUTION_NODE,), offers=(Offer(layers=LAYERS, model_root=MODEL_ROOT),)
        ),
        offer=offer,
        limits=Limits(),
        choices=counting(0xB0),
        unix_s_at_zero=UNIX_S,
    )


def _spec(stage: Signer) -> RequestSpec:
    plan = StagePlan(
        participant=stage.participant,
        standbys=(),
        layers=LAYERS,
        budget_us=Micros(0),
        remaining_min_us=Micros(0),
        remaining_max_us=Micros(500_000),
    )
    return RequestSpec(
        model_root=MODEL_ROOT,
        width=2,
        stages=(plan,),
        codec=ActivationCodec.F32,
        profile=NumericProfile.FLOAT32,
        positions_max=16,
        rows_returned_max=1,
        first_token_us=Micros(2_000_000),
        per_token_us=Micros(500_000),
        valid_s=600,
        late_action=LateAction.CONTINUE,
    )


Lines = list[tuple[str, bytes | str]]


def _identities(session: Session) -> dict[str, Lines]:
    blocks: dict[str, Lines] = {}
    for name, by in (("client", session.client_signer), ("stage", session.stage_signer)):
        delegation = by.delegation
        body = Reader(cbor.decode(delegation.encode()), "delegation").octets()
        digest = transcript_digest("delegation", delegation.participant, delegation.epoch, body)
        blocks[f"{name} delegation"] = [
            ("participant", delegation.participant),
            ("participant as text", participant_text(delegation.participant)),
            ("hot key", delegation.hot_key),
            ("body", body),
            ("digest", digest),
            ("signature", delegation.signature),
            ("delegation", delegation.encode()),
        ]
    return blocks


def _handshake(session: Session) -> dict[str, Lines]:
    (hello_c, sent_c), (hello_s, sent_s) = session.from_client[0], session.from_stage[0]
    assert isinstance(hello_c, HelloFrame)
    assert isinstance(hello_s, HelloFrame)
    blocks: dict[str, Lines] = {
        "client hello": [("first bytes of the stream", session.control(session.client)[:1] + sent_c)],
        "stage hello": [("first bytes of the stream", session.control(session.stage)[:1] + sent_s)],
    }
    ends = (
        ("client", session.client_signer, session.from_client, True),
        ("stage", session.stage_signer, session.from_stage, False),
    )
    for name, by, sent, is_dialler in ends:
        transcript = auth_body(
            dialler_hello=hello_c.body,
            acceptor_hello=hello_s.body,
            acceptor_certificate_sha256=CERTIFICATE,
            is_dialler=is_dialler,
        )
        assert isinstance(sent[1][0], AuthFrame)
        blocks[f"{name} auth"] = [
            ("transcript", transcript),
            ("digest", transcript_digest("auth", by.participant, by.delegation.epoch, transcript)),
            ("AUTH frame", sent[1][1]),
            ("grease frame", sent[2][1]),
        ]
    return blocks


def _request(session: Session) -> dict[str, Lines]:
    opening, opening_bytes = session.from_client[3]
    commit, commit_bytes = session.from_stage[3]
    assert isinstance(opening, OpenFrame)
    assert isinstance(commit, CommitFrame)
    return {
        "open": _signed("OPEN", "open", opening.message, opening_bytes),
        "attach": [("ATTACH frame", session.from_client[4][1])],
        "commit": _signed("COMMIT", "commit", commit.message, commit_bytes),
        "attached": [("ATTACHED frame", session.from_stage[4][1])],
        "cancel": [
            ("CANCEL frame", _only(session.from_client, FrameType.CANCEL)),
        ],
    }


def _steps(session: Session) -> dict[str, Lines]:
    request, secret = RequestId(b"\xa2" * 16), b"\xa4" * 32
    assert request == session.request
    tags: Lines = [("H_0", root_tag(request))]
    tag = root_tag(request)
    for position, token in enumerate(TOKENS):
        commitment = token_commitment(secret, Position(position), token)
        tag = next_tag(tag, commitment)
        tags += [(f"c_{position}, token {token}", commitment), (f"H_{position + 1}", tag)]
    blocks: dict[str, Lines] = {"tags": tags}
    for name, endpoint in (("step", session.client), ("result", session.stage)):
        for index, sent in enumerate(session.steps(endpoint)):
            blocks[f"{name} {index}"] = [("stream", sent.header + bytes(sent.payload))]
    statuses = [raw for frame, raw in session.from_stage if frame.type == FrameType.STATUS]
    blocks["status"] = [(f"STATUS frame {index}", raw) for index, raw in enumerate(statuses)]
    return blocks


def _signed(name: str, domain: str, message: bytes, frame: bytes) -> Lines:
    signed = SignedMessage.decode(domain, message)
    return [
        ("body", signed.body),
        ("digest", signed.digest),
        ("signature", signed.signature),
        (f"{name} frame", frame),
    ]


def _only(frames: list[tuple[Frame, bytes]], frame_type: FrameType) -> bytes:
    (raw,) = (raw for frame, raw in frames if frame.type == frame_type)
    return raw


def _code(lines: Lines) -> str:
    shown = []
    for name, value in lines:
        if isinstance(value, str):
            shown.append(f"{name}: {value}")
            continue
        shown.append(f"{name}, {len(value)} bytes, SHA-256 {sha256(value).hexdigest()[:8]}:")
        digits = value.hex()
        shown += [f"  {digits[at : at + 64]}" for at in range(0, len(digits), 64)]
    return "\n".join(["```", *shown, "```"])


if __name__ == "__main__":
    main(__doc__, outputs)
