"""Conversations with a client. One function, one vector."""

from typing import Any

from vectors_machine import (
    CLIENT,
    FIRST,
    ROW,
    SECOND,
    WIDTH,
    Script,
    commit_frame,
    open_frame,
    opened,
    refusal,
    scenarios,
    step,
)
from vectors_samples import REQUEST, ROOT

from odsi_proto.testing.vector_values import plain
from odsi_proto.units import Handle, Micros, Tag
from odsi_proto.wire import frames

ASKED = {
    "model_root": ROOT.hex(),
    "width": WIDTH,
    "stages": [plain(stage) for stage in opened().stages],
    "codec": 1,
    "profile": 1,
    "positions_max": 16,
    "rows_returned_max": 1,
    "first_token_us": 500_000,
    "per_token_us": 200_000,
    "valid_s": 600,
    "late_action": 1,
}
FIRST_LINK, LAST_LINK = 1, 2


def _client() -> Script:
    """A client, connected to its first and last stage, with a request under way."""
    script = Script("client", CLIENT)
    script.connect(FIRST_LINK, FIRST, is_dialler=True)
    script.connect(LAST_LINK, SECOND, is_dialler=True)
    script.give("open", request=REQUEST.hex(), asked=ASKED, first=FIRST_LINK, last=LAST_LINK)
    return script


def asked_of(script: Script) -> Any:
    """The OPEN that the client signed."""
    from odsi_proto.wire.identity import SignedMessage  # noqa: PLC0415
    from odsi_proto.wire.messages import Open  # noqa: PLC0415

    (effect,) = [e for e in script.steps[-1]["effects"] if e["frames"][0]["frame"] == "OPEN"]
    message = SignedMessage.decode("open", bytes.fromhex(effect["frames"][0]["message"]))
    return Open.decode(message.body)


def _path_ready() -> Script:
    """Every COMMIT and ATTACHED are here."""
    script = _client()
    asked = asked_of(script)
    script.send(FIRST_LINK, commit_frame(asked, 0))
    script.send(FIRST_LINK, commit_frame(asked, 1))
    script.send(LAST_LINK, frames.AttachedFrame(request_id=REQUEST, handle=Handle(0)))
    return script


def a_client_opens_a_path() -> Script:
    return _path_ready()


def send_tokens(script: Script, *tokens: int) -> None:
    rows = (b"\x01" * (ROW * len(tokens))).hex()
    script.give("send_step", request=REQUEST.hex(), tokens=list(tokens), payload=rows)


def rows_of(script: Script, position: int, count: int) -> bytes:
    """The last stage's answer to the step that was sent last."""
    effects = (effect for step in reversed(script.steps) for effect in step["effects"])
    sent = next(effect["header"] for effect in effects if effect["effect"] == "send_step")
    before, after = (Tag(bytes.fromhex(sent[name])) for name in ("tag_before", "tag_after"))
    raw = step(position, count, fill=7, tag_before=before, tag_after=after, remaining_us=Micros(9_000))
    return raw[: len(raw) - ROW * (count - 1)]


def a_client_sends_tokens_and_takes_rows() -> Script:
    script = _path_ready()
    send_tokens(script, 11, 12, 13)
    script.stream(LAST_LINK, rows_of(script, 0, 3))
    send_tokens(script, 14)
    script.stream(LAST_LINK, rows_of(script, 3, 1))
    script.give("cancel", request=REQUEST.hex(), code=0)
    return script


def rows_that_nobody_asked_for_close() -> Script:
    script = _path_ready()
    send_tokens(script, 11)
    script.stream(LAST_LINK, step(5))
    return script


def rows_with_another_tag_close() -> Script:
    script = _path_ready()
    send_tokens(script, 11)
    script.stream(LAST_LINK, step(0))
    return script


def a_commit_that_breaks_the_promise_closes() -> Script:
    script = _client()
    script.send(FIRST_LINK, commit_frame(asked_of(script), 0, price=1))
    return script


def a_commit_to_another_open_closes() -> Script:
    script = _client()
    script.send(FIRST_LINK, commit_frame(opened(), 0))
    return script


def a_refusal_fails_the_request() -> Script:
    script = _client()
    script.send(FIRST_LINK, refusal(code=0x0A, stage=1))
    return script


def a_stale_refusal_fails_nothing() -> Script:
    script = _path_ready()
    script.send(FIRST_LINK, refusal(code=0x10, stage=0))
    return script


def an_unknown_code_fails_the_request_too() -> Script:
    script = _client()
    script.send(FIRST_LINK, refusal(code=0x3FFF, stage=0))
    return script


def abandoned_results_fail_the_request() -> Script:
    script = _path_ready()
    script.send(LAST_LINK, frames.AbandonFrame(handle=Handle(0), code=0x12, reason="lost"))
    return script


def a_path_that_is_not_ready_in_time_fails() -> Script:
    script = _client()
    script.send(FIRST_LINK, commit_frame(asked_of(script), 0))
    script.wait(4_000_000)
    return script


def rows_that_do_not_come_in_time_fail() -> Script:
    script = _path_ready()
    send_tokens(script, 11)
    script.wait(500_000)
    return script


def a_lost_first_stage_fails_the_request() -> Script:
    script = _path_ready()
    script.give("connection_lost", connection=FIRST_LINK)
    return script


def a_lost_last_stage_fails_the_request() -> Script:
    script = _path_ready()
    script.give("connection_lost", connection=LAST_LINK)
    return script


def a_client_is_sent_no_open() -> Script:
    script = _client()
    script.send(FIRST_LINK, open_frame(opened()))
    return script


def vectors() -> list[dict[str, Any]]:
    """All of them."""
    return scenarios(globals())
