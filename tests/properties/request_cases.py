"""What an OPEN may ask rightly and wrongly, and what a model keeps of one."""

from dataclasses import dataclass
from typing import Any

from properties.scripted import Fact

from odsi_proto.limits import Limits
from odsi_proto.units import Handle, Micros, Position, Tag
from odsi_proto.wire.codepoints import ErrorCode as Code
from odsi_proto.wire.codepoints import LateAction
from odsi_proto.wire.identity import SignedMessage
from odsi_proto.wire.messages import Deadline, Extension, Open
from odsi_proto.wire.step import StepHeader

LIMITS = Limits(
    requests_max=2,
    open_us_max=Micros(400_000),
    request_idle_us_max=Micros(700_000),
    clock_skew_s=1,
    step_positions_max=4,
)
CONTEXT = 32


@dataclass
class Asked:
    """A request that this stage took."""

    message: SignedMessage
    opened: Open
    handle: int
    opened_us: int
    state: str = "reserving"
    onward_handle: int | None = None
    ready_us: int = 0


FAULTS: dict[str, tuple[dict[str, Any], Code]] = {
    "model": ({"model_root": bytes(32)}, Code.MODEL_MISMATCH),
    "layers": ({"stages": "other layers"}, Code.LAYERS_MISMATCH),
    "participant": ({"stages": "other participant"}, Code.NOT_AUTHORISED),
    "width": ({"width": 3}, Code.MODEL_MISMATCH),
    "context": ({"positions_max": CONTEXT + 1}, Code.LIMIT_EXCEEDED),
    "codec": ({"codecs": "unknown"}, Code.UNSUPPORTED),
    "profile": ({"profile": 2}, Code.UNSUPPORTED),
    "hash suite": ({"hash_suite": 2}, Code.UNSUPPORTED),
    "late action": ({"late_action": 9}, Code.UNSUPPORTED),
    "extension": ({"extensions": (Extension(type=0x40, value=b""),)}, Code.UNSUPPORTED),
    "budget": ({"deadlines": (Deadline(kind=2, budget_us=Micros(49)),)}, Code.BUDGET_IMPOSSIBLE),
    "expired": ({"expiry_s": -2}, Code.EXPIRED),
}
ALLOWED: dict[str, dict[str, Any]] = {
    "plain": {},
    "reroute": {"late_action": LateAction.REROUTE},
    "budgets of nothing": {"deadlines": (Deadline(kind=9, budget_us=Micros(0)),)},
    "whole context": {"positions_max": CONTEXT},
    "just not expired": {"expiry_s": -1},
    "odd extension": {"extensions": (Extension(type=0x41, value=b"x"),)},
    "no deadline": {"deadlines": ()},
}


CHECKS = [
    *("participant", "expired", "model", "layers", "width", "context"),
    *("codec", "profile", "hash suite", "late action", "extension", "budget"),
]
"""The faults in the order of the checks that find them."""


def comparable(fact: Fact) -> Fact:
    """Without the bytes of a signed COMMIT, which the stage makes."""
    return fact[:4] if fact[0] == "COMMIT" else fact


def early_step(handle: int) -> StepHeader:
    return StepHeader(
        handle=Handle(handle),
        lineage=0,
        attempt=0,
        position=Position(0),
        count=1,
        remaining_us=Micros(1_000),
        owd_us=Micros(0),
        tag_before=Tag(bytes(8)),
        tag_after=Tag(bytes(8)),
    )
