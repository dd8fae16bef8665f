"""Step vectors: conversations with one endpoint, its peers played by hand.

A :class:`Script` drives an endpoint and writes down what it does. The peers' HELLO and AUTH are
real, so an implementation in another language sees valid signatures throughout.
"""

from hashlib import sha256
from typing import Any

from vectors_samples import REQUEST, ROOT, identity, plan

from odsi_proto.testing.vector_machines import Machine, signer_of
from odsi_proto.units import Handle, LayerRange, Micros, Position, StageIndex
from odsi_proto.wire import frames
from odsi_proto.wire.identity import SignedMessage
from odsi_proto.wire.messages import Cancel, Commit, Deadline, Hello, Open, auth_body
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.tag import root_tag, tag_after

CLIENT, FIRST, SECOND, STRANGER = (identity(number) for number in (1, 2, 3, 9))
CERTIFICATE = bytes(32)
UNIX_S = 1_000_000
WIDTH = 2
ROW = 4 * WIDTH
TOKEN, SECRET = b"\x44" * 16, b"\x45" * 32
CONTROL = 3
"""The peer's first unidirectional stream; steps follow on 7, 11, ..."""

UP, ONWARD = 1, 2
"""Connections: to the predecessor, and to the successor or the client."""

Case = dict[str, Any]


class Script:
    """One endpoint, and what it was told and did."""

    def __init__(self, role: str, own: Case, **limits: int) -> None:
        self.own = own
        configuration: Case = {
            "role": role,
            "identity": own,
            "unix_s_at_zero": UNIX_S,
            "limits": limits,
        }
        if role == "stage":
            layers = {"first": 0, "end": 10} if own is FIRST else {"first": 10, "end": 20}
            configuration["offer"] = {
                "layers": layers,
                "model_root": ROOT.hex(),
                "width": WIDTH,
                "positions_max": 64,
            }
        self.configuration = configuration
        self.steps: list[Case] = []
        self.now = 1_000_000
        self._machine = Machine(configuration)
        self._stream = CONTROL

    def give(self, kind: str, **given: Any) -> list[Case]:
        """One input, 1 ms after the one before."""
        self.now += 1_000
        step = {"now": self.now, "input": {"input": kind, **given}}
        effects = self._machine.apply(self.now, step["input"])
        self.steps.append({**step, "effects": effects})
        return effects

    def wait(self, us: int) -> None:
        """Let time pass, then call the timer."""
        self.now += us
        self.give("timer")

    def send(self, connection: int, *sent: frames.Frame, raw: bytes = b"") -> list[Case]:
        """Frames of a peer on its control stream."""
        data = b"".join(map(frames.encode_frame, sent)) + raw
        return self.give("stream_data", connection=connection, stream=CONTROL, data=data.hex(), fin=False)

    def stream(self, connection: int, data: bytes, *, fin: bool = True) -> list[Case]:
        """A stream of a peer."""
        self._stream += 4
        return self.give("stream_data", connection=connection, stream=self._stream, data=data.hex(), fin=fin)

    def made(self, connection: int, peer: Case, *, is_dialler: bool) -> bytes:
        """A new connection; the endpoint's own HELLO comes back."""
        acceptor = peer if is_dialler else self.own
        (hello,) = self.give(
            "connection_made",
            connection=connection,
            is_dialler=is_dialler,
            acceptor_certificate_sha256=CERTIFICATE.hex(),
            acceptor_key=signer_of(acceptor).delegation.hot_key.hex(),
            expected=signer_of(peer).participant.hex() if is_dialler else None,
        )
        return bytes.fromhex(hello["frames"][0]["body"])

    def connect(self, connection: int, peer: Case, *, is_dialler: bool) -> None:
        """A new connection, as far as established."""
        own = self.made(connection, peer, is_dialler=is_dialler)
        theirs = hello_of(peer, acceptor=is_dialler).encode()
        opening = b"\x00" + frames.encode_frame(frames.HelloFrame(body=theirs))
        self.send(connection, raw=opening)
        self.send(connection, auth(peer, own, theirs, peer_dials=not is_dialler))

    def case(self, name: str) -> Case:
        """The vector."""
        return {"name": name, "configuration": self.configuration, "steps": self.steps}


def hello_of(peer: Case, *, acceptor: bool, **changes: Any) -> Hello:
    """What a peer says of itself."""
    values: Case = {
        "versions": (1,),
        "delegation": signer_of(peer).delegation,
        "nonce": bytes.fromhex(peer["cold_seed"]),
        "certificate_sha256": CERTIFICATE if acceptor else b"",
        "roles": (1,) if peer is CLIENT else (2,),
        "codecs": (1, 2),
        "profiles": (1,),
        "hash_suites": (1,),
        "settings": (),
        "offers": (),
    }
    return Hello(**{**values, **changes})


def auth(peer: Case, own: bytes, theirs: bytes, *, peer_dials: bool) -> frames.AuthFrame:
    """A peer's AUTH over both HELLOs."""
    body = auth_body(
        dialler_hello=theirs if peer_dials else own,
        acceptor_hello=own if peer_dials else theirs,
        acceptor_certificate_sha256=CERTIFICATE,
        is_dialler=peer_dials,
    )
    return frames.AuthFrame(signature=signer_of(peer).sign("auth", body))


def opened(**changes: Any) -> Open:
    """The client's request for a path of two stages."""
    values: Case = {
        "request_id": REQUEST,
        "lineage": 0,
        "model_root": ROOT,
        "profile": 1,
        "hash_suite": 1,
        "width": WIDTH,
        "stages": (plan(2, LayerRange(0, 10)), plan(3, LayerRange(10, 20))),
        "codecs": (1, 1, 1),
        "deadlines": (Deadline(kind=1, budget_us=Micros(500_000)),),
        "late_action": 1,
        "price_cap": 0,
        "positions_max": 16,
        "rows_returned_max": 1,
        "return_token_sha256": sha256(TOKEN).digest(),
        "expiry_s": UNIX_S + 600,
    }
    return Open(**{**values, **changes})


def signed(by: Case, domain: str, body: bytes) -> SignedMessage:
    return SignedMessage.sign(signer_of(by), domain, body)


def open_frame(body: Open, *, stage: int = 0, handle: int = 0, by: Case = CLIENT) -> frames.OpenFrame:
    message = signed(by, "open", body.encode()).encode()
    return frames.OpenFrame(handle=Handle(handle), stage=StageIndex(stage), message=message)


def commit_frame(
    body: Open, stage: int, *, handle: int = 0, by: Case | None = None, **changes: Any
) -> frames.CommitFrame:
    """The COMMIT of one stage to the client's OPEN."""
    predecessor = signer_of(CLIENT if stage == 0 else FIRST).participant
    values: Case = {
        "open_digest": signed(CLIENT, "open", body.encode()).digest,
        "request_id": body.request_id,
        "lineage": body.lineage,
        "stage": StageIndex(stage),
        "layers": body.stages[stage].layers,
        "position_first": Position(0),
        "position_end": Position(body.positions_max),
        "predecessor": predecessor,
        "model_root": body.model_root,
        "profile": 1,
        "codec_in": 1,
        "codec_out": 1,
        "budget_us": body.stages[stage].budget_us,
        "tolerance_us": Micros(0),
        "price": 0,
        "checkpoint_steps": 0,
        "checkpoint_us": Micros(0),
        "retention_window": 8,
        "expiry_s": body.expiry_s,
        "previous_commit": b"",
    }
    commit = Commit(**{**values, **changes})
    signer = by or (FIRST, SECOND)[stage]
    message = signed(signer, "commit", commit.encode()).encode()
    return frames.CommitFrame(handle=Handle(handle), stage=StageIndex(stage), message=message)


def step(position: int, count: int = 1, *, fill: int = 1, **changes: Any) -> bytes:
    """A step of tokens 0, 1, 2, ...: header and rows."""
    before = tag_after(root_tag(REQUEST), SECRET, Position(0), range(position))
    values: Case = {
        "handle": Handle(0),
        "lineage": 0,
        "attempt": 0,
        "position": Position(position),
        "count": count,
        "remaining_us": Micros(400_000),
        "owd_us": Micros(500),
        "tag_before": before,
        "tag_after": tag_after(before, SECRET, Position(position), range(position, position + count)),
    }
    return StepHeader(**{**values, **changes}).encode() + bytes([fill]) * (ROW * count)


def established(**limits: int) -> Script:
    """The first stage, its client connected."""
    script = Script("stage", FIRST, **limits)
    script.connect(UP, CLIENT, is_dialler=False)
    return script


def between(**limits: int) -> Script:
    """The first stage of two, connected both ways."""
    script = established(**limits)
    script.connect(ONWARD, SECOND, is_dialler=True)
    return script


def ready(*, limits: dict[str, int] | None = None, **changes: Any) -> Script:
    """The first stage of two, the path ready."""
    script = between(**(limits or {}))
    script.send(UP, open_frame(opened(**changes)))
    script.give("reserved", request=REQUEST.hex())
    script.send(ONWARD, commit_frame(opened(**changes), 1))
    return script


def last() -> Script:
    """The second stage of two: its predecessor and the client connected, the OPEN taken."""
    script = Script("stage", SECOND)
    script.connect(UP, FIRST, is_dialler=False)
    script.connect(ONWARD, CLIENT, is_dialler=False)
    script.send(UP, open_frame(opened(), stage=1))
    script.give("reserved", request=REQUEST.hex())
    return script


def refusal(*, code: int, stage: int) -> frames.RefuseFrame:
    return frames.RefuseFrame(
        handle=Handle(0), stage=StageIndex(stage), code=code, lineage=0, position=Position(0), reason="no"
    )


def cancel_frame(by: dict[str, Any]) -> frames.CancelFrame:
    body = Cancel(request_id=REQUEST, lineage=0, code=0x13).encode()
    return frames.CancelFrame(message=signed(by, "cancel", body).encode())


def scenarios(module: dict[str, Any]) -> list[Case]:
    """The vectors of the functions of a module that take nothing and make a script, in order."""
    made = [
        function
        for name, function in module.items()
        if callable(function)
        and getattr(function, "__module__", None) == module["__name__"]
        and getattr(function, "__annotations__", None) == {"return": Script}
        and not name.startswith("_")
    ]
    return [make().case(make.__name__.replace("_", "-")) for make in made]
