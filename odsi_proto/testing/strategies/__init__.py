"""Hypothesis strategies for everything that travels, and for what is done to an endpoint.

Values are constructed, never filtered, and always valid: what a decoder accepts. They shrink towards
short messages, small numbers and few operations. Needs the extra ``odsi-proto[testing]``.
"""

from importlib.util import find_spec

if find_spec("hypothesis") is None:
    raise ImportError(
        "odsi_proto.testing.strategies needs Hypothesis: python -m pip install 'odsi-proto[testing]'"
    )

from odsi_proto.testing.strategies.endpoints import (
    LIMITS_TIGHT,
    chunkings,
    interleavings,
    limits,
    request_specs,
    stage_plans_of,
)
from odsi_proto.testing.strategies.frames import (
    frames,
    known_frames,
    messages,
    status_records,
    unknown_frames,
)
from odsi_proto.testing.strategies.messages import (
    bodies,
    cancels,
    commits,
    delegations,
    extensions,
    hellos,
    offers,
    opens,
    signed_messages,
    signer_of,
    signers,
    stage_plans,
)
from odsi_proto.testing.strategies.numbers import (
    digests,
    durations,
    handles,
    layer_ranges,
    layouts,
    participants,
    request_ids,
    stage_indices,
    step_headers,
    tags,
    u64s,
    varints,
)
from odsi_proto.testing.strategies.operations import (
    Bytes,
    Drained,
    Lost,
    Measured,
    Operation,
    Passed,
    Reset,
    operations,
    perform,
)
from odsi_proto.testing.strategies.simulation import fault_plans, faults, scenarios, sim_options

__all__ = [
    "LIMITS_TIGHT",
    "Bytes",
    "Drained",
    "Lost",
    "Measured",
    "Operation",
    "Passed",
    "Reset",
    "bodies",
    "cancels",
    "chunkings",
    "commits",
    "delegations",
    "digests",
    "durations",
    "extensions",
    "fault_plans",
    "faults",
    "frames",
    "handles",
    "hellos",
    "interleavings",
    "known_frames",
    "layer_ranges",
    "layouts",
    "limits",
    "messages",
    "offers",
    "opens",
    "operations",
    "participants",
    "perform",
    "request_ids",
    "request_specs",
    "scenarios",
    "signed_messages",
    "signer_of",
    "signers",
    "sim_options",
    "stage_indices",
    "stage_plans",
    "stage_plans_of",
    "status_records",
    "step_headers",
    "tags",
    "u64s",
    "unknown_frames",
    "varints",
]
