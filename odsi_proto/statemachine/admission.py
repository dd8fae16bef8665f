"""May this stage take this OPEN, what does it promise, and does a COMMIT answer that OPEN."""

from dataclasses import dataclass
from enum import IntEnum

from odsi_proto.limits import Limits
from odsi_proto.statemachine.budget import ExecutorLoad, shortfall
from odsi_proto.statemachine.request import StageRequest
from odsi_proto.units import LayerRange, Micros, ParticipantId, Position, StageIndex
from odsi_proto.wire.codepoints import ErrorCode, HashSuite, LateAction
from odsi_proto.wire.identity import SignedMessage, participant_short
from odsi_proto.wire.messages import Commit, Open, first_critical
from odsi_proto.wire.tensor import ActivationCodec, NumericProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOffer:
    """What an execution node runs."""

    layers: LayerRange
    model_root: bytes
    width: int
    positions_max: int
    """The model's context."""
    profile: NumericProfile = NumericProfile.FLOAT32
    """How the layers are computed."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why not."""

    code: ErrorCode
    reason: str
    queue_us: Micros = Micros(0)
    """With OVERLOADED: until a step taken now would start."""


def check_open(
    record: StageRequest,
    *,
    offer: StageOffer,
    own: ParticipantId,
    predecessor: ParticipantId,
    unix_s: int,
    limits: Limits,
    load: ExecutorLoad | None,
) -> Refusal | None:
    """The first reason why this stage does not take the OPEN, or None."""
    opened = record.open
    if record.stage >= len(opened.stages) or record.plan.participant != own:
        return Refusal(
            ErrorCode.NOT_AUTHORISED, f"stage {record.stage} of the path is not {participant_short(own)}"
        )
    before = record.message.signer if not record.stage else opened.stages[record.stage - 1].participant
    if predecessor != before:
        names = f"{participant_short(before)}, not from {participant_short(predecessor)}"
        what = f"stage {record.stage} takes steps from {names}"
        return Refusal(ErrorCode.NOT_AUTHORISED, what)
    if unix_s > opened.expiry_s + limits.clock_skew_s or not record.message.delegation.is_current(
        unix_s, skew_s=limits.clock_skew_s
    ):
        return Refusal(ErrorCode.EXPIRED, "the OPEN or its signer's delegation is past its end")
    if opened.model_root != offer.model_root:
        what = f"the request is for model {opened.model_root.hex()}, this node runs {offer.model_root.hex()}"
        return Refusal(ErrorCode.MODEL_MISMATCH, what)
    if record.plan.layers != offer.layers:
        what = f"the request is for layers {record.plan.layers}, this node runs {offer.layers}"
        return Refusal(ErrorCode.LAYERS_MISMATCH, what)
    if opened.width != offer.width:
        return Refusal(
            ErrorCode.MODEL_MISMATCH, f"rows of {opened.width} values, this model's have {offer.width}"
        )
    if opened.positions_max > offer.positions_max:
        what = f"{opened.positions_max} positions, this model's context is {offer.positions_max}"
        return Refusal(ErrorCode.LIMIT_EXCEEDED, what)
    return _check_negotiated(opened, offer) or _check_budgets(record, limits, load)


def _check_negotiated(opened: Open, offer: StageOffer) -> Refusal | None:
    """Every number must be one that this version knows, and what it names must be to be had here."""
    asked: tuple[tuple[str, tuple[int, ...], type[IntEnum]], ...] = (
        ("codec", opened.codecs, ActivationCodec),
        ("numeric profile", (opened.profile,), NumericProfile),
        ("hash suite", (opened.hash_suite,), HashSuite),
        ("late action", (opened.late_action,), LateAction),
    )
    for name, numbers, known in asked:
        for number in numbers:
            if number not in {int(member) for member in known}:
                return Refusal(ErrorCode.UNSUPPORTED, f"{name} {number} is not known here")
    if opened.profile != offer.profile:
        asked_for = NumericProfile(opened.profile).name
        what = f"the request is for numeric profile {asked_for}, this node computes {offer.profile.name}"
        return Refusal(ErrorCode.UNSUPPORTED, what)
    critical = first_critical(opened.extensions)
    if critical is not None:
        return Refusal(ErrorCode.UNSUPPORTED, f"the OPEN has a critical extension of type {critical.type:#x}")
    return None


def _check_budgets(record: StageRequest, limits: Limits, load: ExecutorLoad | None) -> Refusal | None:
    """What can not be met is refused before anything is computed. Spec: TIME-030, TIME-031."""
    stages_us: list[int] = [limits.stage_us_min] * len(record.open.stages)
    if load is not None and load.decode_us is not None:
        stages_us[record.stage] = max(load.decode_us, limits.stage_us_min)
    lacking = shortfall(record.open, stages_us, way_us=0)
    if lacking is not None:
        return Refusal(ErrorCode.BUDGET_IMPOSSIBLE, lacking)
    if load is not None and not load.takes(record.layout_in.row_bytes):
        what = f"the executor takes no further step now: one would wait {load.queue_us} us"
        return Refusal(ErrorCode.OVERLOADED, what, load.queue_us)
    return None


def commit_to(record: StageRequest, offer: StageOffer, predecessor: ParticipantId, limits: Limits) -> Commit:
    """What this stage promises for an OPEN that passed every check. Price 0, no checkpoints yet."""
    opened = record.open
    return Commit(
        open_digest=record.message.digest,
        request_id=opened.request_id,
        lineage=opened.lineage,
        stage=record.stage,
        layers=offer.layers,
        position_first=Position(0),
        position_end=Position(opened.positions_max),
        predecessor=predecessor,
        model_root=offer.model_root,
        profile=opened.profile,
        codec_in=opened.codecs[record.stage],
        codec_out=opened.codecs[record.stage + 1],
        budget_us=record.plan.budget_us,
        tolerance_us=Micros(0),
        price=0,
        checkpoint_steps=0,
        checkpoint_us=Micros(0),
        retention_window=limits.retained_outputs_max,
        expiry_s=opened.expiry_s,
        previous_commit=b"",
    )


def is_commit_to(message: SignedMessage, opening: SignedMessage, opened: Open, stage: StageIndex) -> bool:
    """Whether a signed COMMIT is by the stage it names and promises what the OPEN asked of it."""
    commit, plan = Commit.decode(message.body), opened.stages[stage]
    return (
        message.signer == plan.participant
        and commit.stage == stage
        and (commit.request_id, commit.lineage) == (opened.request_id, opened.lineage)
        and commit.open_digest == opening.digest
        and commit.layers == plan.layers
        and commit.model_root == opened.model_root
        and commit.profile == opened.profile
        and (commit.codec_in, commit.codec_out) == opened.codecs[stage : stage + 2]
        and commit.predecessor == (opened.stages[stage - 1].participant if stage else opening.signer)
        and commit.position_first == 0
        and commit.position_end >= opened.positions_max
        and (commit.budget_us, commit.expiry_s) == (plan.budget_us, opened.expiry_s)
        and commit.price <= opened.price_cap
        and first_critical(commit.extensions) is None
    )
