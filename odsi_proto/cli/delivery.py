"""What a generation shows: tokens as they come, then the result as JSON (docs/json.md) or a table."""

from dataclasses import dataclass, field
from typing import assert_never

from rich.table import Table

from odsi_proto.cli.output import Output
from odsi_proto.node.result import ClientReport, GenerationResult, StageReport, TokenEvent
from odsi_proto.wire.identity import participant_short, participant_text


@dataclass(slots=True)
class Delivery:
    """Takes what a generation yields, shows it, and keeps the result."""

    output: Output
    _shown: int = field(default=0, init=False)
    """Characters of the text that were streamed."""
    _result: GenerationResult | None = field(default=None, init=False)

    @property
    def result(self) -> GenerationResult:
        """The result; only once the generation has come to its end."""
        assert self._result is not None
        return self._result

    def take(self, item: TokenEvent | GenerationResult) -> None:
        """Show a token, or keep the result."""
        match item:
            case TokenEvent():
                fields = {"token_id": item.token_id, "position": item.position, "text": item.text}
                self.output.stream("token", fields, text=item.text)
                self._shown += len(item.text)
            case GenerationResult():
                # A character that the last token left incomplete was held back until now.
                self.output.stream_rest(item.text[self._shown :])
                self._result = item
            case _:
                assert_never(item)


def result_fields(result: GenerationResult) -> dict[str, object]:
    """A finished generation."""
    return {
        "text": result.text,
        "token_ids": list(result.token_ids),
        "tokens_per_second": round(result.tokens_per_second, 3),
        "prompt_positions": result.prompt_positions,
        "finish_reason": result.finish_reason.value,
        "reroutes": result.reroutes,
        "is_exact": result.is_exact,
        "first_token_us": result.first_token_us,
        "stages": [_stage_fields(stage) for stage in result.stages],
        "client": _client_fields(result.client),
    }


def result_table(result: GenerationResult) -> Table:
    """Where the time and the bytes of one token go, stage by stage."""
    table = Table(title="per token, means over the decode steps", title_justify="left")
    table.add_column("stage")
    table.add_column("layers")
    for heading in ("compute ms", "queue ms", "transfer ms", "bytes sent"):
        table.add_column(heading, justify="right")
    client = result.client
    table.add_row("client", "embed", _ms(client.embed_us), "", "", str(client.bytes_per_token))
    table.add_row("client", "head", _ms(client.head_us), "", "", "")
    table.add_row("client", "sample", _ms(client.sample_us), "", "", "")
    for index, stage in enumerate(result.stages):
        times = (_ms(us) for us in (stage.compute_us, stage.queue_us, stage.transfer_us))
        name = f"{index}" if stage.participant is None else f"{index}  {participant_short(stage.participant)}"
        table.add_row(name, str(stage.layers), *times, str(stage.bytes_per_token))
    return table


def summary(result: GenerationResult) -> str:
    """One line about how it went."""
    return (
        f"{len(result.token_ids)} tokens ({result.finish_reason.value.replace('_', ' ')}), "
        f"{result.tokens_per_second:.1f} tokens/s, first token after {_ms(result.first_token_us)} ms"
    )


def _stage_fields(stage: StageReport) -> dict[str, object]:
    return {
        "participant": None if stage.participant is None else participant_text(stage.participant),
        "layers": str(stage.layers),
        "compute_us": stage.compute_us,
        "queue_us": stage.queue_us,
        "transfer_us": stage.transfer_us,
        "bytes_per_token": stage.bytes_per_token,
    }


def _client_fields(client: ClientReport) -> dict[str, object]:
    return {
        "embed_us": client.embed_us,
        "head_us": client.head_us,
        "sample_us": client.sample_us,
        "bytes_per_token": client.bytes_per_token,
    }


def _ms(duration_us: int) -> str:
    return f"{duration_us / 1000:.1f}"
