"""Bounds on everything that a peer controls, with the reason for each default.

Every buffer, loop and table over peer-controlled data names its bound here; tests try each at the
limit and one above.
"""

from dataclasses import dataclass

from odsi_proto.units import Micros

PREFILL_CHUNK_POSITIONS = 128
"""Positions of a prompt that travel as one step: large enough for matrix products to pay, small
enough that stages work on different chunks of one prompt at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one endpoint accepts from its peers."""

    connections_max: int = 256
    """Connections at once; further Initials are not answered."""

    control_frame_bytes_max: int = 65_536
    """One control frame; the largest is an OPEN of 64 stages at about 6 KB."""

    hello_bytes_max: int = 4_096
    """A HELLO comes from somebody unknown: it gets less."""

    streams_per_connection_max: int = 128
    """Incoming streams that are not finished; QUIC's own credit is the same."""

    step_positions_max: int = 512
    """Positions in one step: bounds the payload buffer and one piece of compute."""

    step_payload_bytes_max: int = 16 << 20
    """One step's payload: 512 rows of 8,192 binary32 values."""

    incoming_bytes_max: int = 256 << 20
    """Payload bytes announced by the unfinished steps of one connection: a prompt of 8,192 positions
    at 8,192 binary32 values, all its chunks under way at once."""

    parked_steps_max: int = 64
    """EARLY steps held per request: the chunks of an 8,192-token prompt."""

    parked_bytes_max: int = 32 << 20
    """EARLY payload bytes held per request."""

    queued_steps_max: int = 64
    """Steps of one request with the executor when another is taken: the chunks of an 8,192-token
    prompt. Parked steps whose turn has come may add to them."""

    queued_bytes_max: int = 256 << 20
    """Payload bytes of one request with the executor when another step is taken: such a prompt at
    8,192 binary32 values."""

    executor_steps_max: int = 1_024
    """Steps of all requests that wait for one executor or run: a decode step of each request, and the
    prompts of a dozen others."""

    executor_bytes_max: int = 1 << 29
    """Their payload bytes: half a gigabyte, two prompts of 8,192 positions at 8,192 binary32 values."""

    parked_us_max: Micros = Micros(2_000_000)
    """How long an EARLY step waits for the one before it; a lost packet is repaired well within."""

    retained_outputs_max: int = 8
    """Outputs kept per request until the next step acknowledges them."""

    requests_max: int = 256
    """Requests open at once at one endpoint. One that waits for its client costs no compute, and steps of
    64 that do not run together: 200 clients that decode at once are what a stage is for. Memory for their
    state is bounded apart."""

    request_idle_us_max: Micros = Micros(600_000_000)
    """How long a ready request may go without a step: state is not held for somebody who forgot it."""

    handshake_us_max: Micros = Micros(4_000_000)
    """From a connection to its verified HELLO."""

    open_us_max: Micros = Micros(4_000_000)
    """From OPEN to the last COMMIT and ATTACHED of the path; nothing in it waits for compute."""

    abandoned_us_max: Micros = Micros(700_000)
    """How long a client waits, after the last stage gave up, for the path to say who is the cause: two
    neighbours of a dead stage notice within a keep-alive of each other."""

    answer_us_max: Micros = Micros(2_500_000)
    """For a dialled address to answer at all: three of QUIC's first packets."""

    silence_us_max: Micros = Micros(3_500_000)
    """A connection on which nothing arrived for this long, keep-alives included, is lost."""

    keep_alive_us: Micros = Micros(500_000)
    """How often an open connection is pinged."""

    stage_us_min: Micros = Micros(50)
    """The least that any stage takes of a decode step, whatever it computes: to read a header, hand the
    step to the executor and write the next. A plan that gives a stage less can not be kept."""

    status_delay_us: Micros = Micros(5_000)
    """How long a status record may wait for others to share its frame."""

    clock_skew_s: int = 600
    """How far the clocks of a delegation's signer and reader may differ; validity is in days."""
