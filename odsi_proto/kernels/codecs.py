"""Activation rows to payload bytes and back; the layouts and their sizes are in ``wire.tensor``.

``F32`` is exact. ``F16`` rounds to binary16; its exponent is 0 while a row fits, so the common row
is plain binary16 with two zero bytes before it, and a row of a residual stream past 65,504 is
scaled by the smallest power of two that makes it fit. A value that is not finite has no encoding,
nor has one in the last thousandth of binary32's range in ``F16``.
"""

import math
import sys

import torch
from torch import Tensor

from odsi_proto.errors import Malformed, ModelError
from odsi_proto.wire.tensor import F16_SCALE_BYTES, ActivationCodec, ActivationLayout

F16_MAX = 65_504.0
"""The largest finite binary16 value."""

EXPONENT_MIN, EXPONENT_MAX = -126, 112
"""Powers of two that a row may be scaled by. 2**-126 is the smallest normal binary32; above 2**112 a
row could leave binary32 when it is scaled back."""

if sys.byteorder != "little":
    raise ImportError("activation payloads are little-endian, and so must this machine be")


def encode_rows(codec: ActivationCodec, rows: Tensor) -> bytearray:
    """The payload of float32 ``rows`` [count, width]; ``ModelError`` if a value is not finite."""
    peaks: list[float] = rows.abs().amax(dim=1).tolist()
    for index, peak in enumerate(peaks):
        if not math.isfinite(peak):
            raise ModelError(f"row {index} of the activations has a value that is not finite")
    layout = ActivationLayout(codec=codec, width=rows.shape[1])
    payload = bytearray(layout.payload_bytes(len(peaks)))
    match codec:
        case ActivationCodec.F32:
            torch.frombuffer(payload, dtype=torch.float32).view_as(rows).copy_(rows)
        case ActivationCodec.F16:
            _encode_f16(payload, rows, peaks)
    return payload


def decode_rows(codec: ActivationCodec, payload: memoryview, width: int) -> Tensor:
    """The float32 rows [count, width] of ``payload``; raises ``Malformed``."""
    row_bytes = ActivationLayout(codec=codec, width=width).row_bytes
    if not payload or len(payload) % row_bytes:
        raise Malformed(f"a payload of {len(payload)} bytes is not a number of rows of {row_bytes} bytes")
    writable = bytearray(payload)  # torch wants a buffer that it could write to
    match codec:
        case ActivationCodec.F32:
            rows = torch.frombuffer(writable, dtype=torch.float32).view(-1, width)
        case ActivationCodec.F16:
            rows = _decode_f16(writable, width)
    if not math.isfinite(rows.abs().amax().item()):
        raise Malformed("a payload holds a value that is not finite")
    return rows


def _encode_f16(payload: bytearray, rows: Tensor, peaks: list[float]) -> None:
    table = torch.frombuffer(payload, dtype=torch.float16).view(len(peaks), -1)
    exponents = [_exponent(peak) for peak in peaks]
    if max(exponents) > EXPONENT_MAX:
        raise ModelError(f"row {exponents.index(max(exponents))} of the activations is too large for f16")
    if any(exponents):
        scale = torch.tensor(exponents, dtype=torch.int16)
        table.view(torch.int16)[:, 0] = scale
        rows = torch.ldexp(rows, -scale[:, None])
    table[:, F16_SCALE_BYTES // 2 :] = rows


def _decode_f16(payload: bytearray, width: int) -> Tensor:
    table = torch.frombuffer(payload, dtype=torch.float16).view(-1, F16_SCALE_BYTES // 2 + width)
    exponents = table.view(torch.int16)[:, 0]
    rows = table[:, F16_SCALE_BYTES // 2 :].float()
    used = exponents.tolist()
    if not any(used):
        return rows
    if not EXPONENT_MIN <= min(used) <= max(used) <= EXPONENT_MAX:
        raise Malformed(f"a row's exponent is outside {EXPONENT_MIN} to {EXPONENT_MAX}")
    return torch.ldexp(rows, exponents[:, None])


def _exponent(peak: float) -> int:
    """The smallest e, not below 0, with ``peak`` <= F16_MAX * 2**e."""
    if peak <= F16_MAX:
        return 0
    fraction, exponent = math.frexp(peak / F16_MAX)
    return exponent - 1 if fraction == 0.5 else exponent
