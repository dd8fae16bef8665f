"""HELLO, OPEN, COMMIT, CANCEL, delegations, and signed messages of a few participants.

Keys are made once for each seed: a signature takes longer than everything else in a message.
"""

from functools import cache

from hypothesis import strategies as st

from odsi_proto.testing.network import make_signer
from odsi_proto.testing.strategies.numbers import (
    digests,
    layer_ranges,
    optional_digests,
    participants,
    request_ids,
    stage_indices,
    u64s,
    varints,
)
from odsi_proto.units import Micros, Position
from odsi_proto.wire.identity import Delegation, SignedMessage, Signer
from odsi_proto.wire.messages import (
    EXTENSION_BYTES_MAX,
    Cancel,
    Commit,
    Deadline,
    Extension,
    Hello,
    Offer,
    Open,
    StagePlan,
)

SIGNERS_COUNT = 6
"""Participants that strategies choose from: a client, a path, a stranger."""

Body = Hello | Open | Commit | Cancel


@cache
def signer_of(seed: int) -> Signer:
    """The participant of a seed, made once."""
    return make_signer(seed)


def signers() -> st.SearchStrategy[Signer]:
    """One of a few participants that can sign."""
    return st.integers(0, SIGNERS_COUNT - 1).map(signer_of)


def delegations() -> st.SearchStrategy[Delegation]:
    """Delegations that verify."""
    return signers().map(lambda signer: signer.delegation)


def extensions() -> st.SearchStrategy[tuple[Extension, ...]]:
    """Extensions of a body, critical ones among them."""
    extension = st.builds(Extension, type=u64s(), value=st.binary(max_size=EXTENSION_BYTES_MAX))
    return st.lists(extension, max_size=3).map(tuple)


def offers() -> st.SearchStrategy[tuple[Offer, ...]]:
    """What an execution node says that it runs."""
    offer = st.builds(Offer, layers=layer_ranges(), model_root=digests())
    return st.lists(offer, max_size=3).map(tuple)


def hellos() -> st.SearchStrategy[Hello]:
    """HELLO bodies."""
    numbers = st.lists(u64s(), max_size=4).map(tuple)
    return st.builds(
        Hello,
        versions=numbers,
        delegation=delegations(),
        nonce=digests(),
        certificate_sha256=optional_digests(),
        roles=numbers,
        codecs=numbers,
        profiles=numbers,
        hash_suites=numbers,
        settings=st.lists(st.tuples(u64s(), u64s()), max_size=4).map(tuple),
        offers=offers(),
        extensions=extensions(),
    )


def stage_plans() -> st.SearchStrategy[StagePlan]:
    """One place on a path, of anybody."""
    return st.builds(
        StagePlan,
        participant=participants(),
        standbys=st.lists(participants(), max_size=2).map(tuple),
        layers=layer_ranges(),
        budget_us=u64s().map(Micros),
        remaining_min_us=u64s().map(Micros),
        remaining_max_us=u64s().map(Micros),
    )


@st.composite
def opens(draw: st.DrawFn) -> Open:
    """OPEN bodies that decode; stages need not fit together."""
    stages = tuple(draw(st.lists(stage_plans(), min_size=1, max_size=4)))
    hops = len(stages) + 1
    deadline = st.builds(Deadline, kind=u64s(), budget_us=u64s().map(Micros))
    return Open(
        request_id=draw(request_ids()),
        lineage=draw(varints()),
        model_root=draw(digests()),
        profile=draw(u64s()),
        hash_suite=draw(u64s()),
        width=draw(st.integers(1, 1 << 20)),
        stages=stages,
        codecs=tuple(draw(st.lists(u64s(), min_size=hops, max_size=hops))),
        deadlines=tuple(draw(st.lists(deadline, max_size=3))),
        late_action=draw(u64s()),
        price_cap=draw(u64s()),
        positions_max=draw(st.integers(1, 1 << 30)),
        rows_returned_max=1 + draw(varints()),
        return_token_sha256=draw(digests()),
        expiry_s=draw(u64s()),
        extensions=draw(extensions()),
    )


def commits() -> st.SearchStrategy[Commit]:
    """COMMIT bodies, to no OPEN in particular."""
    return st.builds(
        Commit,
        open_digest=digests(),
        request_id=request_ids(),
        lineage=varints(),
        stage=stage_indices(),
        layers=layer_ranges(),
        position_first=u64s().map(Position),
        position_end=u64s().map(Position),
        predecessor=participants(),
        model_root=digests(),
        profile=u64s(),
        codec_in=u64s(),
        codec_out=u64s(),
        budget_us=u64s().map(Micros),
        tolerance_us=u64s().map(Micros),
        price=u64s(),
        checkpoint_steps=u64s(),
        checkpoint_us=u64s().map(Micros),
        retention_window=u64s(),
        expiry_s=u64s(),
        previous_commit=optional_digests(),
        extensions=extensions(),
    )


def cancels() -> st.SearchStrategy[Cancel]:
    """CANCEL bodies."""
    return st.builds(Cancel, request_id=request_ids(), lineage=varints(), code=u64s())


def bodies() -> st.SearchStrategy[Body]:
    """Every body that is a CBOR array."""
    return st.one_of(cancels(), hellos(), opens(), commits())


def signed_messages() -> st.SearchStrategy[SignedMessage]:
    """Signed messages of every domain that verify."""
    signable = st.one_of(
        st.tuples(st.just("cancel"), cancels()),
        st.tuples(st.just("open"), opens()),
        st.tuples(st.just("commit"), commits()),
    )
    return st.builds(
        lambda signer, said: SignedMessage.sign(signer, said[0], said[1].encode()), signers(), signable
    )
