"""An endpoint that is configured, driven and observed through JSON: what step vectors are run on.

Choices are no random numbers here: the n-th draw, counted from 1, is all bytes n mod 256. Reasons
that are for people, estimates of slack, trace events and frames of reserved types are not observed.
"""

from collections.abc import Mapping
from typing import Any

from nacl.signing import SigningKey

from odsi_proto.limits import Limits
from odsi_proto.statemachine import effects as fx
from odsi_proto.statemachine.admission import StageOffer
from odsi_proto.statemachine.budget import ExecutorLoad
from odsi_proto.statemachine.claim import RequestSpec
from odsi_proto.statemachine.client import ClientEndpoint
from odsi_proto.statemachine.session import Binding, SelfDescription
from odsi_proto.statemachine.stage import StageEndpoint
from odsi_proto.testing.vector_values import plain
from odsi_proto.units import ConnectionId, LayerRange, Micros, ParticipantId, Position, RequestId
from odsi_proto.wire.codepoints import ErrorCode, LateAction, Role, StreamType
from odsi_proto.wire.frames import UnknownFrame, decode_frame
from odsi_proto.wire.identity import Delegation, Signer
from odsi_proto.wire.messages import Offer, StagePlan
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.tensor import ActivationCodec, NumericProfile
from odsi_proto.wire.varint import Cursor

Fields = Mapping[str, Any]


def signer_of(identity: Fields) -> Signer:
    """A participant and its hot key from two seeds."""
    cold, hot = (SigningKey(bytes.fromhex(identity[name])) for name in ("cold_seed", "hot_seed"))
    delegation = Delegation.issue(
        cold,
        hot_key=bytes(hot.verify_key),
        epoch=identity["epoch"],
        not_before_s=identity["not_before_s"],
        not_after_s=identity["not_after_s"],
    )
    return Signer(hot_key=hot, delegation=delegation)


class Machine:
    """One endpoint under test."""

    def __init__(self, configuration: Fields) -> None:
        self._drawn = 0
        self._begun: set[int] = set()
        """Connections whose control stream has begun."""
        signer = signer_of(configuration["identity"])
        common: dict[str, Any] = {
            "limits": Limits(**configuration["limits"]),
            "choices": self._draw,
            "unix_s_at_zero": configuration["unix_s_at_zero"],
        }
        self._stage: StageEndpoint | None = None
        self._client: ClientEndpoint | None = None
        if configuration["role"] == "stage":
            given = configuration["offer"]
            layers, root = _layers(given["layers"]), bytes.fromhex(given["model_root"])
            offer = StageOffer(
                layers=layers,
                model_root=root,
                width=given["width"],
                positions_max=given["positions_max"],
            )
            about = SelfDescription(
                signer=signer,
                roles=(Role.EXECUTION_NODE,),
                offers=(Offer(layers=layers, model_root=root),),
            )
            self._stage = StageEndpoint(about=about, offer=offer, **common)
        else:
            self._client = ClientEndpoint(
                about=SelfDescription(signer=signer, roles=(Role.CLIENT,)), **common
            )

    def apply(self, now: int, given: Fields) -> list[dict[str, Any]]:
        """Feed one input at ``now``; what the endpoint asks of its driver comes back."""
        effects = self._transport(Micros(now), given)
        observed = (self._observed(effect) for effect in effects)
        return [effect for effect in observed if effect is not None]

    def _transport(self, now: Micros, given: Fields) -> tuple[fx.Effect, ...]:  # noqa: PLR0911
        endpoint = self._stage or self._client
        assert endpoint is not None
        connection = ConnectionId(given.get("connection", 0))
        match given["input"]:
            case "connection_made":
                expected = given["expected"]
                binding = Binding(
                    is_dialler=given["is_dialler"],
                    acceptor_certificate_sha256=bytes.fromhex(given["acceptor_certificate_sha256"]),
                    acceptor_key=bytes.fromhex(given["acceptor_key"]),
                    expected=None if expected is None else ParticipantId(bytes.fromhex(expected)),
                )
                return endpoint.connection_made(connection, binding, now=now)
            case "stream_data":
                data = bytes.fromhex(given["data"])
                return endpoint.stream_data(connection, given["stream"], data, fin=given["fin"], now=now)
            case "stream_reset":
                return endpoint.stream_reset(connection, given["stream"], now=now)
            case "connection_lost":
                return endpoint.connection_lost(connection, "lost", now=now)
            case "timer":
                return endpoint.timer(now=now)
            case "drain":
                return endpoint.drain("leaving", now=now)
        if given["input"] == "executor_measured":
            assert self._stage is not None
            names = ("queue_us", "decode_us", "credit_steps", "credit_bytes")
            self._stage.executor_measured(ExecutorLoad(**{name: given[name] for name in names}))
            return ()
        request = RequestId(bytes.fromhex(given["request"]))
        if self._stage is not None:
            return _stage_input(self._stage, request, now, given)
        assert self._client is not None
        return _client_input(self._client, request, now, given)

    def _draw(self, count: int) -> bytes:
        self._drawn += 1
        return bytes([self._drawn % 256]) * count

    def _observed(self, effect: fx.Effect) -> dict[str, Any] | None:
        match effect:
            case fx.SendControl():
                return {
                    "effect": "send_control",
                    "connection": effect.connection,
                    "frames": self._frames(effect),
                }
            case fx.SendStep():
                return {
                    "effect": "send_step",
                    "connection": effect.connection,
                    "header": plain(StepHeader.decode(Cursor(effect.header, 1))),
                    "payload": effect.payload.hex(),
                }
            case fx.Trace() | fx.Transition():
                return None
        name = "".join(f"_{c.lower()}" if c.isupper() else c for c in type(effect).__name__).lstrip("_")
        record = plain(effect)
        record.pop("reason", None)
        record.pop("slack_us", None)  # an estimate: each implementation may have its own
        return {"effect": name, **record}

    def _frames(self, effect: fx.SendControl) -> list[dict[str, Any]]:
        cursor = Cursor(effect.data)
        if effect.connection not in self._begun:
            self._begun.add(effect.connection)
            assert cursor.varint() == StreamType.CONTROL
        found = []
        while cursor.left:
            frame = decode_frame(cursor, payload_bytes_max=1 << 20)
            if isinstance(frame, UnknownFrame) and frame.type % 62 == 27:
                continue
            record = plain(frame)
            record.pop("reason", None)
            found.append(record)
        return found


def _stage_input(
    stage: StageEndpoint, request: RequestId, now: Micros, given: Fields
) -> tuple[fx.Effect, ...]:
    match given["input"]:
        case "reserved":
            return stage.reserved(request, now=now)
        case "reserve_failed":
            return stage.reserve_failed(request, "no room", now=now)
        case "output":
            return stage.output(
                request,
                Position(given["position"]),
                memoryview(bytes.fromhex(given["rows"])),
                started_us=Micros(given["started_us"]),
                finished_us=Micros(given["finished_us"]),
                now=now,
            )
        case "failed":
            return stage.failed(request, Position(given["position"]), "broken", now=now)
        case "expired":
            return stage.expired(request, Position(given["position"]), now=now)
    raise ValueError(f"no input of a stage is called {given['input']!r}")


def _client_input(
    client: ClientEndpoint, request: RequestId, now: Micros, given: Fields
) -> tuple[fx.Effect, ...]:
    match given["input"]:
        case "open":
            first, last = ConnectionId(given["first"]), ConnectionId(given["last"])
            return client.open(request, _spec(given["asked"]), first=first, last=last, now=now)
        case "send_step":
            rows = memoryview(bytes.fromhex(given["payload"]))
            return client.send_step(request, given["tokens"], rows, now=now)
        case "cancel":
            return client.cancel(request, ErrorCode(given["code"]), now=now)
    raise ValueError(f"no input of a client is called {given['input']!r}")


def _spec(asked: Fields) -> RequestSpec:
    stages = tuple(
        StagePlan(
            participant=ParticipantId(bytes.fromhex(stage["participant"])),
            standbys=(),
            layers=_layers(stage["layers"]),
            budget_us=Micros(stage["budget_us"]),
            remaining_min_us=Micros(stage["remaining_min_us"]),
            remaining_max_us=Micros(stage["remaining_max_us"]),
        )
        for stage in asked["stages"]
    )
    return RequestSpec(
        model_root=bytes.fromhex(asked["model_root"]),
        width=asked["width"],
        stages=stages,
        codec=ActivationCodec(asked["codec"]),
        profile=NumericProfile(asked["profile"]),
        positions_max=asked["positions_max"],
        rows_returned_max=asked["rows_returned_max"],
        first_token_us=Micros(asked["first_token_us"]),
        per_token_us=Micros(asked["per_token_us"]),
        total_us=Micros(asked["total_us"]) if "total_us" in asked else None,
        valid_s=asked["valid_s"],
        late_action=LateAction(asked["late_action"]),
    )


def _layers(given: Fields) -> LayerRange:
    return LayerRange(given["first"], given["end"])
