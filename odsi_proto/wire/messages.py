"""The bodies that are signed: HELLO, OPEN, COMMIT, CANCEL. CBOR arrays, one field after another.

Each begins with the version, ends with extensions, and keeps the extensions it does not know, so
that a body can be forwarded, hashed and judged by somebody who knows less than its signer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from odsi_proto.errors import ConfigError, Malformed
from odsi_proto.units import LayerRange, Micros, ParticipantId, Position, RequestId, StageIndex
from odsi_proto.wire import cbor
from odsi_proto.wire.codepoints import VERSION, DeadlineKind, is_ignorable
from odsi_proto.wire.fields import Reader
from odsi_proto.wire.identity import KEY_BYTES, Delegation
from odsi_proto.wire.merkle import DIGEST_BYTES
from odsi_proto.wire.varint import VARINT_MAX

REQUEST_ID_BYTES = 16
NONCE_BYTES = 32
LIST_ITEMS_MAX = 64
"""Items of any list in a body: stages, standbys, codecs, extensions."""

EXTENSION_BYTES_MAX = 1024
LAYERS_MAX = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """A field that a later version or an experiment added."""

    type: int
    value: bytes


def first_critical(extensions: Sequence[Extension]) -> Extension | None:
    """The first extension that must be understood; version 1 defines none, so it can not be."""
    return next((extension for extension in extensions if not is_ignorable(extension.type)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Layers of a model that an execution node runs."""

    layers: LayerRange
    model_root: bytes
    """The Merkle root of the model's manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What each side says of itself, first. AUTH signs both HELLOs of a connection."""

    versions: tuple[int, ...]
    """Every version that the sender speaks, so that nobody can talk two peers down."""
    delegation: Delegation
    nonce: bytes
    certificate_sha256: bytes
    """Of the sender's TLS certificate; empty from a dialler that presents none."""
    roles: tuple[int, ...]
    codecs: tuple[int, ...]
    profiles: tuple[int, ...]
    hash_suites: tuple[int, ...]
    settings: tuple[tuple[int, int], ...]
    offers: tuple[Offer, ...]
    extensions: tuple[Extension, ...] = ()

    def encode(self) -> bytes:
        """The HELLO's body."""
        return cbor.encode(
            [
                self.versions,
                self.delegation.encode(),
                self.nonce,
                self.certificate_sha256,
                self.roles,
                self.codecs,
                self.profiles,
                self.hash_suites,
                self.settings,
                [[offer.layers.first, offer.layers.end, offer.model_root] for offer in self.offers],
                _extension_values(self.extensions),
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> "Hello":
        """Parse; the delegation inside is verified."""
        reader = Reader(cbor.decode(data), "HELLO")
        hello = cls(
            versions=_unsigned_list(reader),
            delegation=Delegation.decode(reader.octets(max_bytes=1024)),
            nonce=reader.octets(exactly=NONCE_BYTES),
            certificate_sha256=_optional_digest(reader),
            roles=_unsigned_list(reader),
            codecs=_unsigned_list(reader),
            profiles=_unsigned_list(reader),
            hash_suites=_unsigned_list(reader),
            settings=reader.records(lambda r: (r.unsigned(), r.unsigned()), max_items=LIST_ITEMS_MAX),
            offers=reader.records(_offer, max_items=LIST_ITEMS_MAX),
            extensions=_extensions(reader),
        )
        reader.end()
        return hello


def auth_body(
    *, dialler_hello: bytes, acceptor_hello: bytes, acceptor_certificate_sha256: bytes, is_dialler: bool
) -> bytes:
    """What AUTH signs: who speaks, both HELLOs as sent, the certificate that the signer saw."""
    role = b"\x00" if is_dialler else b"\x01"
    return (
        role + sha256(dialler_hello).digest() + sha256(acceptor_hello).digest() + acceptor_certificate_sha256
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """One stage of a path as the client asks for it."""

    participant: ParticipantId
    standbys: tuple[ParticipantId, ...]
    """Who takes over, in order."""
    layers: LayerRange
    budget_us: Micros
    """From input availability to output production, for one decode step; 0: no bound of its own."""
    remaining_min_us: Micros
    """The least that should be left of a decode step's budget when it arrives here."""
    remaining_max_us: Micros
    """The most that can be: a stage that finds less or more knows that a hop before it misreported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """A duration that something must not take longer than."""

    kind: int
    budget_us: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """A client's request for a path, signed once and forwarded verbatim to every stage."""

    request_id: RequestId
    lineage: int
    model_root: bytes
    profile: int
    hash_suite: int
    width: int
    """Values in an activation row."""
    stages: tuple[StagePlan, ...]
    codecs: tuple[int, ...]
    """One per hop: into each stage in order, then back to the client."""
    deadlines: tuple[Deadline, ...]
    late_action: int
    price_cap: int
    positions_max: int
    """Positions of state that every stage reserves."""
    rows_returned_max: int
    """The last stage sends the client at most this many last rows of a step."""
    return_token_sha256: bytes
    """Whoever shows the last stage the preimage receives the results."""
    expiry_s: int
    """Seconds since 1970 after which no stage takes a step of it."""
    extensions: tuple[Extension, ...] = ()

    def encode(self) -> bytes:
        """The body that the client signs."""
        return cbor.encode(
            [
                VERSION,
                self.request_id,
                self.lineage,
                self.model_root,
                self.profile,
                self.hash_suite,
                self.width,
                [_stage_values(stage) for stage in self.stages],
                self.codecs,
                [[deadline.kind, deadline.budget_us] for deadline in self.deadlines],
                self.late_action,
                self.price_cap,
                self.positions_max,
                self.rows_returned_max,
                self.return_token_sha256,
                self.expiry_s,
                _extension_values(self.extensions),
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> "Open":
        """Parse; a path without stages or with the wrong number of codecs is ``Malformed``."""
        reader = Reader(cbor.decode(data), "OPEN")
        reader.constant(VERSION)
        opened = cls(
            request_id=RequestId(reader.octets(exactly=REQUEST_ID_BYTES)),
            lineage=reader.unsigned(maximum=VARINT_MAX),
            model_root=reader.octets(exactly=DIGEST_BYTES),
            profile=reader.unsigned(),
            hash_suite=reader.unsigned(),
            width=reader.unsigned(maximum=1 << 20),
            stages=reader.records(_stage, max_items=LIST_ITEMS_MAX),
            codecs=_unsigned_list(reader, max_items=LIST_ITEMS_MAX + 1),
            deadlines=reader.records(
                lambda r: Deadline(kind=r.unsigned(), budget_us=Micros(r.unsigned())),
                max_items=LIST_ITEMS_MAX,
            ),
            late_action=reader.unsigned(),
            price_cap=reader.unsigned(),
            positions_max=reader.unsigned(maximum=1 << 30),
            rows_returned_max=reader.unsigned(),
            return_token_sha256=reader.octets(exactly=DIGEST_BYTES),
            expiry_s=reader.unsigned(),
            extensions=_extensions(reader),
        )
        reader.end()
        if not opened.stages or len(opened.codecs) != len(opened.stages) + 1:
            raise Malformed(
                f"an OPEN of {len(opened.stages)} stages with {len(opened.codecs)} codecs", spec="REQ-040"
            )
        if not opened.width or not opened.positions_max or not opened.rows_returned_max:
            raise Malformed(
                "an OPEN for nothing: width, positions and rows returned are at least 1", spec="CBOR-004"
            )
        return opened

    def budget_max_us(self, position: Position) -> Micros | None:
        """What no step from ``position`` on can have more left of; None: there is no such bound.

        The first step is under FIRST_TOKEN; of another a stage can not tell under which of the two it is.
        """
        kinds = (DeadlineKind.FIRST_TOKEN, *((DeadlineKind.PER_TOKEN,) if position else ()))
        budgets = [self.budget_us(kind) for kind in kinds]
        whole_us = self.budget_us(DeadlineKind.TOTAL)
        stated = [us for us in budgets if us is not None]
        if len(stated) < len(budgets):
            return whole_us
        largest_us = max(stated)
        return largest_us if whole_us is None else min(largest_us, whole_us)

    def budget_us(self, kind: int) -> Micros | None:
        """The budget of one deadline kind, if the client set it; of several of one kind the first."""
        return next((d.budget_us for d in self.deadlines if d.kind == kind), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A stage's signed promise to run its part of an OPEN. No step is sent without it."""

    open_digest: bytes
    """Of the signed OPEN: the promise covers what the client asked for, to the letter."""
    request_id: RequestId
    lineage: int
    stage: StageIndex
    layers: LayerRange
    position_first: Position
    position_end: Position
    predecessor: ParticipantId
    """From whom inputs are taken."""
    model_root: bytes
    profile: int
    codec_in: int
    codec_out: int
    budget_us: Micros
    tolerance_us: Micros
    price: int
    checkpoint_steps: int
    """A signed checkpoint covers at most this many steps; 0: none are made."""
    checkpoint_us: Micros
    retention_window: int
    """Outputs kept for sending again."""
    expiry_s: int
    previous_commit: bytes
    """Digest of the commitment that this one replaces; empty for the first."""
    extensions: tuple[Extension, ...] = ()

    def encode(self) -> bytes:
        """The body that the stage signs."""
        return cbor.encode(
            [
                VERSION,
                self.open_digest,
                self.request_id,
                self.lineage,
                self.stage,
                self.layers.first,
                self.layers.end,
                self.position_first,
                self.position_end,
                self.predecessor,
                self.model_root,
                self.profile,
                self.codec_in,
                self.codec_out,
                self.budget_us,
                self.tolerance_us,
                self.price,
                self.checkpoint_steps,
                self.checkpoint_us,
                self.retention_window,
                self.expiry_s,
                self.previous_commit,
                _extension_values(self.extensions),
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> "Commit":
        """Parse."""
        reader = Reader(cbor.decode(data), "COMMIT")
        reader.constant(VERSION)
        commit = cls(
            open_digest=reader.octets(exactly=DIGEST_BYTES),
            request_id=RequestId(reader.octets(exactly=REQUEST_ID_BYTES)),
            lineage=reader.unsigned(maximum=VARINT_MAX),
            stage=StageIndex(reader.unsigned(maximum=LIST_ITEMS_MAX - 1)),
            layers=_layers(reader),
            position_first=Position(reader.unsigned()),
            position_end=Position(reader.unsigned()),
            predecessor=ParticipantId(reader.octets(exactly=KEY_BYTES)),
            model_root=reader.octets(exactly=DIGEST_BYTES),
            profile=reader.unsigned(),
            codec_in=reader.unsigned(),
            codec_out=reader.unsigned(),
            budget_us=Micros(reader.unsigned()),
            tolerance_us=Micros(reader.unsigned()),
            price=reader.unsigned(),
            checkpoint_steps=reader.unsigned(),
            checkpoint_us=Micros(reader.unsigned()),
            retention_window=reader.unsigned(),
            expiry_s=reader.unsigned(),
            previous_commit=_optional_digest(reader),
            extensions=_extensions(reader),
        )
        reader.end()
        return commit


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """A client's signed end of a request, finished or not; forwarded verbatim."""

    request_id: RequestId
    lineage: int
    code: int
    """NO_ERROR after the last token, CANCELLED before."""

    def encode(self) -> bytes:
        """The body that the client signs."""
        return cbor.encode([VERSION, self.request_id, self.lineage, self.code])

    @classmethod
    def decode(cls, data: bytes) -> "Cancel":
        """Parse."""
        reader = Reader(cbor.decode(data), "CANCEL")
        reader.constant(VERSION)
        cancel = cls(
            request_id=RequestId(reader.octets(exactly=REQUEST_ID_BYTES)),
            lineage=reader.unsigned(maximum=VARINT_MAX),
            code=reader.unsigned(),
        )
        reader.end()
        return cancel


def _unsigned_list(reader: Reader, *, max_items: int = LIST_ITEMS_MAX) -> tuple[int, ...]:
    items = reader.array(max_items=max_items)
    inner = Reader(items, "list of numbers")
    return tuple(inner.unsigned() for _ in items)


def _optional_digest(reader: Reader) -> bytes:
    digest = reader.octets(max_bytes=DIGEST_BYTES)
    if len(digest) not in {0, DIGEST_BYTES}:
        raise Malformed(f"a digest of {len(digest)} bytes, expected {DIGEST_BYTES} or none", spec="CBOR-004")
    return digest


def _layers(reader: Reader) -> LayerRange:
    first, end = reader.unsigned(maximum=LAYERS_MAX), reader.unsigned(maximum=LAYERS_MAX)
    try:
        return LayerRange(first, end)
    except ConfigError as error:
        raise Malformed(str(error), spec="CBOR-004") from error


def _offer(reader: Reader) -> Offer:
    return Offer(layers=_layers(reader), model_root=reader.octets(exactly=DIGEST_BYTES))


def _stage(reader: Reader) -> StagePlan:
    return StagePlan(
        participant=ParticipantId(reader.octets(exactly=KEY_BYTES)),
        standbys=tuple(_standbys(reader)),
        layers=_layers(reader),
        budget_us=Micros(reader.unsigned()),
        remaining_min_us=Micros(reader.unsigned()),
        remaining_max_us=Micros(reader.unsigned()),
    )


def _standbys(reader: Reader) -> list[ParticipantId]:
    items = reader.array(max_items=LIST_ITEMS_MAX)
    inner = Reader(items, "list of standbys")
    return [ParticipantId(inner.octets(exactly=KEY_BYTES)) for _ in items]


def _stage_values(stage: StagePlan) -> list[cbor.Value]:
    return [
        stage.participant,
        stage.standbys,
        stage.layers.first,
        stage.layers.end,
        stage.budget_us,
        stage.remaining_min_us,
        stage.remaining_max_us,
    ]


def _extensions(reader: Reader) -> tuple[Extension, ...]:
    return reader.records(
        lambda r: Extension(type=r.unsigned(), value=r.octets(max_bytes=EXTENSION_BYTES_MAX)),
        max_items=LIST_ITEMS_MAX,
    )


def _extension_values(extensions: Sequence[Extension]) -> list[list[int | bytes]]:
    return [[extension.type, extension.value] for extension in extensions]
