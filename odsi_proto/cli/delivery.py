"""What a generation shows: tokens as they come, then the result as JSON (docs/json.md) or a table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import assert_never

from rich.box import SIMPLE_HEAD
from rich.table import Table

from odsi_proto.cli.output import Output
from odsi_proto.node.result import ClientReport, GenerationResult, Spread, StageReport, TokenEvent
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
        "first_token_us": result.first_token_us,
        "token": result.token._asdict(),
        "unaccounted": result.unaccounted._asdict(),
        "stages": [_stage_fields(stage) for stage in result.stages],
        "client": _client_fields(result.client),
        "steps_left_out": result.steps_left_out,
    }


def result_table(result: GenerationResult) -> Table:
    """Where the time and the bytes of one token go: a line for each part, and they add up."""
    title = "ms per token, over the decode steps; means add up to the token's"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("stage", no_wrap=True)
    table.add_column("part", no_wrap=True)
    for heading in ("transfer", "queue", "compute", "coord.", "mean", "p50", "p99", "bytes"):
        table.add_column(heading, justify="right", no_wrap=True)
    client, none = result.client, ("", "", "", "")
    table.add_row("client", "embed", *none, *_spread(client.embed), "")
    table.add_row("", "send", *none, *_spread(client.send), str(client.bytes_per_token))
    for index, stage in enumerate(result.stages):
        parts = (stage.transfer, stage.queue, stage.compute, stage.coordination)
        name = f"{index}" if stage.participant is None else f"{index} {participant_short(stage.participant)}"
        means = (_ms(part.mean_us) for part in parts)
        table.add_row(
            name, f"layers {stage.layers}", *means, *_spread(stage.total), str(stage.bytes_per_token)
        )
    table.add_row("client", "return", _ms(client.returned.mean_us), *none[1:], *_spread(client.returned), "")
    for what, part in (("head", client.head), ("sample", client.sample), ("caller", client.caller)):
        table.add_row("", what, *none, *_spread(part), "")
    table.add_row("", "unaccounted", *none, *_spread(result.unaccounted), "", end_section=True)
    table.add_row("token", "", *none, *_spread(result.token), "")
    return table


def summary(result: GenerationResult) -> str:
    """One line about how it went."""
    return (
        f"{len(result.token_ids)} tokens ({result.finish_reason.value.replace('_', ' ')}), "
        f"{result.tokens_per_second:.1f} tokens/s, first token after {_ms(result.first_token_us)} ms"
    )


def _stage_fields(stage: StageReport) -> dict[str, object]:
    parts = {
        "transfer": stage.transfer,
        "queue": stage.queue,
        "compute": stage.compute,
        "coordination": stage.coordination,
        "total": stage.total,
    }
    return {
        "participant": None if stage.participant is None else participant_text(stage.participant),
        "layers": str(stage.layers),
        **_means(parts),
        "bytes_per_token": stage.bytes_per_token,
        "parts": _spreads(parts),
    }


def _client_fields(client: ClientReport) -> dict[str, object]:
    parts = {
        "caller": client.caller,
        "embed": client.embed,
        "send": client.send,
        "return": client.returned,
        "head": client.head,
        "sample": client.sample,
    }
    return {**_means(parts), "bytes_per_token": client.bytes_per_token, "parts": _spreads(parts)}


def _means(parts: Mapping[str, Spread]) -> dict[str, object]:
    return {f"{name}_us": part.mean_us for name, part in parts.items()}


def _spreads(parts: Mapping[str, Spread]) -> dict[str, object]:
    return {name: part._asdict() for name, part in parts.items()}


def _spread(part: Spread) -> tuple[str, str, str]:
    return _ms(part.mean_us), _ms(part.p50_us), _ms(part.p99_us)


def _ms(duration_us: int) -> str:
    return f"{duration_us / 1000:.1f}"
