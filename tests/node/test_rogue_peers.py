"""A client that dials somebody who speaks another protocol, another version, or not at all."""

import asyncio
from dataclasses import replace

import pytest
from node.live import client
from node.test_quic import Recorder

from odsi_proto.errors import PeerError
from odsi_proto.limits import Limits
from odsi_proto.node.certificate import make_certificate
from odsi_proto.node.quic import QuicEndpoint
from odsi_proto.routing.path import Peer
from odsi_proto.statemachine.session import Binding, SelfDescription, own_hello
from odsi_proto.testing import make_signer
from odsi_proto.units import ConnectionId, LayerRange
from odsi_proto.wire.codepoints import Role, StreamType
from odsi_proto.wire.frames import HelloFrame, encode_frame
from odsi_proto.wire.messages import Hello
from odsi_proto.wire.tensor import ActivationCodec
from odsi_proto.wire.varint import encode_varint

ROGUE = make_signer(1)


class OtherVersion(Recorder):
    """Speaks version 2 and nothing else."""

    quic: QuicEndpoint

    def connected(self, connection: ConnectionId, binding: Binding) -> None:
        about = SelfDescription(signer=ROGUE, roles=(Role.EXECUTION_NODE,))
        body = own_hello(about, binding, Limits(), nonce=bytes(32))
        hello = replace(Hello.decode(body), versions=(2,))
        data = encode_varint(StreamType.CONTROL) + encode_frame(HelloFrame(body=hello.encode()))
        self.quic.send_control(connection, data)


def what_a_client_says_of(rogue: Recorder, *, alpn: str = "odsi/1") -> str:
    async def run() -> str:
        quic = QuicEndpoint(rogue, certificate=make_certificate(ROGUE), limits=Limits(), alpn=alpn)
        if isinstance(rogue, OtherVersion):
            rogue.quic = quic
        host, port = await quic.bind("127.0.0.1", 0)
        peer = Peer(participant=ROGUE.participant, host=host, port=port, layers=LayerRange(0, 30))
        try:
            with pytest.raises(PeerError) as caught:
                await client([peer], ActivationCodec.F32).__aenter__()
        finally:
            quic.shut_down()
        return str(caught.value)

    return asyncio.run(run())


def test_a_peer_that_speaks_another_protocol_is_named_with_the_reason() -> None:
    message = what_a_client_says_of(Recorder(), alpn="h3")
    assert "at 127.0.0.1:" in message
    assert "ALPN" in message


@pytest.mark.spec("SESS-010")
def test_a_peer_of_another_version_is_named_with_both_versions() -> None:
    message = what_a_client_says_of(OtherVersion())
    assert "at 127.0.0.1:" in message
    assert "the peer speaks 2, this side 1" in message


@pytest.mark.spec("SESS-007")
def test_a_peer_that_says_nothing_is_given_up_when_the_handshake_is_overdue() -> None:
    assert "the handshake took longer than 4 s" in what_a_client_says_of(Recorder())
