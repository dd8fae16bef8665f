"""Conversations about connections: HELLO, AUTH, streams and frames. One function, one vector."""

from typing import Any

from nacl.signing import SigningKey
from vectors_machine import (
    CLIENT,
    CONTROL,
    FIRST,
    SECOND,
    STRANGER,
    UP,
    Script,
    auth,
    established,
    hello_of,
    open_frame,
    opened,
    scenarios,
)

from odsi_proto.testing.vector_machines import signer_of
from odsi_proto.wire import frames
from odsi_proto.wire.identity import Delegation
from odsi_proto.wire.messages import Extension


def accepted(**changes: Any) -> tuple[Script, bytes, bytes]:
    """A stage that a client dialled, the client's HELLO received."""
    script = Script("stage", FIRST)
    own = script.made(UP, CLIENT, is_dialler=False)
    theirs = hello_of(CLIENT, acceptor=False, **changes).encode()
    script.send(UP, raw=b"\x00" + frames.encode_frame(frames.HelloFrame(body=theirs)))
    return script, own, theirs


def hello_and_auth_establish() -> Script:
    script, own, theirs = accepted()
    script.send(UP, auth(CLIENT, own, theirs, peer_dials=True))
    return script


def a_dialler_establishes_too() -> Script:
    script = Script("client", CLIENT)
    script.connect(UP, FIRST, is_dialler=True)
    return script


def hello_in_single_bytes() -> Script:
    script = Script("stage", FIRST)
    script.made(UP, CLIENT, is_dialler=False)
    raw = b"\x00" + frames.encode_frame(frames.HelloFrame(body=hello_of(CLIENT, acceptor=False).encode()))
    for at in range(3):
        script.send(UP, raw=raw[at : at + 1])
    script.send(UP, raw=raw[3:])
    return script


def auth_by_another_key_closes() -> Script:
    script, own, theirs = accepted()
    script.send(UP, auth(STRANGER, own, theirs, peer_dials=True))
    return script


def auth_in_the_other_role_closes() -> Script:
    script, own, theirs = accepted()
    script.send(UP, auth(CLIENT, theirs, own, peer_dials=False))
    return script


def auth_before_hello_closes() -> Script:
    script = Script("stage", FIRST)
    script.made(UP, CLIENT, is_dialler=False)
    script.send(UP, raw=b"\x00" + frames.encode_frame(frames.AuthFrame(signature=bytes(64))))
    return script


def a_second_hello_closes() -> Script:
    script, _, theirs = accepted()
    script.send(UP, frames.HelloFrame(body=theirs))
    return script


def a_request_before_auth_closes() -> Script:
    script, _, _ = accepted()
    script.send(UP, open_frame(opened()))
    return script


def no_common_version_closes() -> Script:
    return accepted(versions=(2, 3))[0]


def a_critical_extension_closes() -> Script:
    return accepted(extensions=(Extension(type=2, value=b""),))[0]


def an_ignorable_extension_is_ignored() -> Script:
    return accepted(extensions=(Extension(type=27, value=b""),))[0]


def an_expired_delegation_closes() -> Script:
    cold = SigningKey(bytes.fromhex(CLIENT["cold_seed"]))
    hot_key = signer_of(CLIENT).delegation.hot_key
    old = Delegation.issue(cold, hot_key=hot_key, epoch=1, not_before_s=0, not_after_s=5)
    return accepted(delegation=old)[0]


def the_wrong_acceptor_closes() -> Script:
    script = Script("client", CLIENT)
    script.made(UP, FIRST, is_dialler=True)
    theirs = hello_of(SECOND, acceptor=True).encode()
    script.send(UP, raw=b"\x00" + frames.encode_frame(frames.HelloFrame(body=theirs)))
    return script


def another_certificate_closes() -> Script:
    script = Script("client", CLIENT)
    script.made(UP, FIRST, is_dialler=True)
    theirs = hello_of(FIRST, acceptor=True, certificate_sha256=b"\x01" * 32).encode()
    script.send(UP, raw=b"\x00" + frames.encode_frame(frames.HelloFrame(body=theirs)))
    return script


def silence_closes() -> Script:
    script, _, _ = accepted()
    script.wait(4_000_000)
    return script


def unknown_odd_frames_are_ignored() -> Script:
    script = established()
    script.send(UP, frames.UnknownFrame(type=0x1B, body=b"?"), frames.UnknownFrame(type=0x4001, body=b"?"))
    return script


def an_unknown_even_frame_closes() -> Script:
    script = established()
    script.send(UP, frames.UnknownFrame(type=0x4000, body=b""))
    return script


def a_malformed_frame_closes() -> Script:
    script = established()
    script.send(UP, raw=b"\x0a\x00")
    return script


def a_frame_that_is_too_long_closes() -> Script:
    script = established()
    script.send(UP, raw=b"\x1b\x80\x01\x00\x01")
    return script


def a_second_control_stream_closes() -> Script:
    script = established()
    script.stream(UP, b"\x00", fin=False)
    return script


def the_end_of_the_control_stream_closes() -> Script:
    script = established()
    script.give("stream_data", connection=UP, stream=CONTROL, data="", fin=True)
    return script


def a_reset_of_the_control_stream_closes() -> Script:
    script = established()
    script.give("stream_reset", connection=UP, stream=CONTROL)
    return script


def an_unknown_odd_stream_is_stopped() -> Script:
    script = established()
    script.stream(UP, b"\x1bwhatever", fin=False)
    return script


def an_unknown_even_stream_closes() -> Script:
    script = established()
    script.stream(UP, b"\x1awhatever", fin=False)
    return script


def goaway_and_drain() -> Script:
    script = established()
    script.send(UP, frames.GoawayFrame(code=0x14, reason="bye"))
    script.give("drain")
    return script


def a_draining_stage_refuses_an_open() -> Script:
    script = established()
    script.give("drain")
    script.send(UP, open_frame(opened()))
    return script


def after_a_close_nothing_is_answered() -> Script:
    script = established()
    script.send(UP, raw=b"\x0a\x00")
    script.send(UP, open_frame(opened()))
    script.give("connection_lost", connection=UP)
    return script


def vectors() -> list[dict[str, Any]]:
    """All of them."""
    return scenarios(globals())
