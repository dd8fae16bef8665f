"""Generations that never ran: a client's tally told of steps by a clock of its own."""

from odsi_proto.node.result import Budgets, FinishReason, GenerationResult
from odsi_proto.node.tally import Tally
from odsi_proto.routing.path import Peer
from odsi_proto.testing import make_signer
from odsi_proto.units import LayerRange, Micros, Position, StageIndex
from odsi_proto.wire.frames import StatusRecord

EMBED_US, SEND_US, HEAD_US, SAMPLE_US, RETURN_US = 200, 100, 3_000, 150, 500
CALLER_US, UNACCOUNTED_US = 50, 250
TRANSFER_US, QUEUE_US, COORDINATION_US = 500, 300, 80


class Generation:
    """Steps of a path of ``stages`` stages; what each part takes is above, compute is said."""

    def __init__(
        self, stages: int = 3, *, prompt: int = 1, budgets: tuple[int, int] = (10**6, 10**5)
    ) -> None:
        self.now_us = 5_000
        self.path = [
            Peer(
                participant=make_signer(index + 1).participant,
                host="127.0.0.1",
                port=4400 + index,
                layers=LayerRange(10 * index, 10 * index + 10),
            )
            for index in range(stages)
        ]
        self.stages = stages
        self.tally = Tally(self.path, clock_ns=lambda: self.now_us * 1_000)
        self.tally.budgets = Budgets(first_token_us=budgets[0], per_token_us=budgets[1])
        self.tally.start(prompt)
        self.prompt = prompt

    def send(self, count: int) -> None:
        """The client's part before the way."""
        self.tally.begin(count)
        self.now_us += EMBED_US
        self.tally.embedded()
        self.now_us += SEND_US
        self.tally.sent(1_183)

    def arrive(self, position: int, compute_us: int, *, remaining_us: int = 1, report: bool = True) -> None:
        """Every stage runs the step, and the rows come back."""
        hop_us = TRANSFER_US + QUEUE_US + compute_us + COORDINATION_US
        self.now_us += self.stages * hop_us + RETURN_US + UNACCOUNTED_US
        self.tally.arrived(Position(position), Micros(RETURN_US))
        if report:
            self.tally.add_status(
                record(index, position, compute_us, remaining_us=remaining_us) for index in range(self.stages)
            )

    def sample(self, token: int) -> None:
        """The client's part after the way."""
        self.tally.begin_head()
        self.now_us += HEAD_US
        self.tally.headed()
        self.now_us += SAMPLE_US
        self.tally.sampled(token)

    def first(self, compute_us: int = 20_000) -> None:
        """The prompt in one chunk, and the first token."""
        self.send(self.prompt)
        self.arrive(0, compute_us)
        self.sample(0)

    def token(self, compute_us: int = 5_000, *, remaining_us: int = 1) -> None:
        """One decode step."""
        position = self.prompt + len(self.tally.token_ids) - 1
        self.now_us += CALLER_US
        self.send(1)
        self.arrive(position, compute_us, remaining_us=remaining_us)
        self.sample(len(self.tally.token_ids))

    def reroute(self) -> None:
        """Go on along the same stages in the opposite order, which run all there is again."""
        self.tally.reroute(self.path[::-1], self.prompt + len(self.tally.token_ids))

    def result(self, text: str = "", *, reroutes: int = 0) -> GenerationResult:
        """All of it."""
        return self.tally.result(text, FinishReason.MAX_TOKENS, reroutes=reroutes, is_exact=True)


def record(
    stage: int, position: int, compute_us: int, *, remaining_us: int = 1, flags: int = 0
) -> StatusRecord:
    """What one stage reports of one step."""
    return StatusRecord(
        stage=StageIndex(stage),
        lineage=0,
        position=Position(position),
        count=1,
        remaining_us=Micros(remaining_us),
        transfer_us=Micros(TRANSFER_US),
        queue_us=Micros(QUEUE_US),
        compute_us=Micros(compute_us),
        coordination_us=Micros(COORDINATION_US),
        output_bytes=1_183,
        flags=flags,
    )
