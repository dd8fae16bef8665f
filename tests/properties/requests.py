"""OPEN, COMMIT and the like as honest participants would make them, from the wire layer alone."""

from dataclasses import replace
from hashlib import sha256

from properties.scripted import CLIENT, MODEL_ROOT, WIDTH

from odsi_proto.testing.strategies import signer_of, stage_plans_of
from odsi_proto.units import Handle, Micros, Position, RequestId, StageIndex
from odsi_proto.wire import frames as wire
from odsi_proto.wire.codepoints import DeadlineKind, LateAction
from odsi_proto.wire.identity import SignedMessage, Signer
from odsi_proto.wire.messages import Cancel, Commit, Deadline, Open
from odsi_proto.wire.tensor import ActivationCodec

FIRST_TOKEN_US, PER_TOKEN_US = Micros(400_000), Micros(300_000)


def token_of(request: RequestId) -> bytes:
    """The return token of a request in these tests."""
    return bytes(reversed(request))


def open_of(request: RequestId, *, stages_count: int, unix_s: int, **changes: object) -> Open:
    """An OPEN that every stage of its path takes, unless changed."""
    opened = Open(
        request_id=request,
        lineage=0,
        model_root=MODEL_ROOT,
        profile=1,
        hash_suite=1,
        width=WIDTH,
        stages=stage_plans_of([signer_of(1 + index).participant for index in range(stages_count)]),
        codecs=(int(ActivationCodec.F32),) * (stages_count + 1),
        deadlines=(
            Deadline(kind=DeadlineKind.FIRST_TOKEN, budget_us=FIRST_TOKEN_US),
            Deadline(kind=DeadlineKind.PER_TOKEN, budget_us=PER_TOKEN_US),
        ),
        late_action=LateAction.CONTINUE,
        price_cap=0,
        positions_max=16,
        rows_returned_max=1,
        return_token_sha256=sha256(token_of(request)).digest(),
        expiry_s=unix_s + 600,
    )
    return replace(opened, **changes)  # type: ignore[arg-type]


def signed_open(opened: Open, signer: Signer = CLIENT) -> SignedMessage:
    """The OPEN as its client signs it."""
    return SignedMessage.sign(signer, "open", opened.encode())


def open_frame(message: SignedMessage, *, handle: int, stage: int) -> wire.OpenFrame:
    """The OPEN on its way."""
    return wire.OpenFrame(handle=Handle(handle), stage=StageIndex(stage), message=message.encode())


def attach_frame(request: RequestId, *, token: bytes | None = None) -> wire.AttachFrame:
    """The client's claim on the results."""
    return wire.AttachFrame(request_id=request, return_token=token or token_of(request))


def commit_of(message: SignedMessage, stage: int, *, predecessor: Signer, **changes: object) -> Commit:
    """What stage ``stage`` promises when it promises what was asked."""
    opened = Open.decode(message.body)
    commit = Commit(
        open_digest=message.digest,
        request_id=opened.request_id,
        lineage=opened.lineage,
        stage=StageIndex(stage),
        layers=opened.stages[stage].layers,
        position_first=Position(0),
        position_end=Position(opened.positions_max),
        predecessor=predecessor.participant,
        model_root=opened.model_root,
        profile=opened.profile,
        codec_in=opened.codecs[stage],
        codec_out=opened.codecs[stage + 1],
        budget_us=opened.stages[stage].budget_us,
        tolerance_us=Micros(0),
        price=0,
        checkpoint_steps=0,
        checkpoint_us=Micros(0),
        retention_window=2,
        expiry_s=opened.expiry_s,
        previous_commit=b"",
    )
    return replace(commit, **changes)  # type: ignore[arg-type]


def commit_frame(
    message: SignedMessage,
    stage: int,
    *,
    handle: int,
    by: Signer | None = None,
    frame_stage: int | None = None,
    **changes: object,
) -> wire.CommitFrame:
    """The COMMIT of ``stage`` on its way up, by ``by`` if it is forged."""
    predecessor = CLIENT if not stage else signer_of(stage)
    commit = commit_of(message, stage, predecessor=predecessor, **changes)
    signed = SignedMessage.sign(by or signer_of(1 + stage), "commit", commit.encode())
    place = StageIndex(stage if frame_stage is None else frame_stage)
    return wire.CommitFrame(handle=Handle(handle), stage=place, message=signed.encode())


def cancel_frame(request: RequestId, *, by: Signer = CLIENT, code: int = 0x13) -> wire.CancelFrame:
    """The client's word that a request is over."""
    cancel = Cancel(request_id=request, lineage=0, code=code)
    return wire.CancelFrame(message=SignedMessage.sign(by, "cancel", cancel.encode()).encode())
