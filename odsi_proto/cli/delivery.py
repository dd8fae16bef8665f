"""What a generation shows: tokens as they come, then the result as JSON (docs/json.md) or a table."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

from rich.table import Table

from odsi_proto.cli.files import write_atomically
from odsi_proto.cli.generation_options import PROFILE_DEFAULT, GenerationOptions
from odsi_proto.cli.output import Output
from odsi_proto.kernels.model_path import default_model_path
from odsi_proto.node.result import ClientReport, GenerationResult, Spread, StageReport, TokenEvent
from odsi_proto.wire.identity import participant_short, participant_text


@dataclass(slots=True)
class Delivery:
    """Takes what a generation yields, shows it, and keeps the result."""

    output: Output
    pieces: list[str] = field(default_factory=list, init=False)
    """What each token added to the text."""
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
                self.pieces.append(item.text)
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
        "token": result.token._asdict(),
        "unaccounted": result.unaccounted._asdict(),
        "stages": [_stage_fields(stage) for stage in result.stages],
        "client": _client_fields(result.client),
        "steps_left_out": result.steps_left_out,
    }


PART_HEADINGS = ("stage", "part", "transfer", "queue", "compute", "coord.", "mean", "p50", "p99", "bytes")


def result_table(result: GenerationResult) -> Table:
    """Where the time and the bytes of one token go: a line for each part, and they add up."""
    title = "ms per token, over the decode steps; means add up to the token's"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for number, heading in enumerate(PART_HEADINGS):
        table.add_column(heading, justify="left" if number < 2 else "right", no_wrap=True)
    for cells in part_rows(result):
        table.add_row(*cells)
    return table


def part_rows(result: GenerationResult) -> Iterator[tuple[str, ...]]:
    """The cells under :data:`PART_HEADINGS`."""
    client, none = result.client, ("", "", "", "")
    yield ("client", "embed", *none, *_spread(client.embed), "")
    yield ("", "send", *none, *_spread(client.send), str(client.bytes_per_token))
    for index, stage in enumerate(result.stages):
        parts = (stage.transfer, stage.queue, stage.compute, stage.coordination)
        name = f"{index}" if stage.participant is None else f"{index} {participant_short(stage.participant)}"
        means = (_ms(part.mean_us) for part in parts)
        yield (name, str(stage.layers), *means, *_spread(stage.total), str(stage.bytes_per_token))
    yield ("client", "return", _ms(client.returned.mean_us), *none[1:], *_spread(client.returned), "")
    for what, part in (("head", client.head), ("sample", client.sample), ("caller", client.caller)):
        yield ("", what, *none, *_spread(part), "")
    yield ("", "unaccounted", *none, *_spread(result.unaccounted), "")
    yield ("token", "", *none, *_spread(result.token), "")


def write_waterfall(file: Path, delivery: Delivery, options: GenerationOptions, output: Output) -> None:
    """The page of a delivered generation; raises ``ConfigError`` if it can not be written."""
    from odsi_proto.cli.waterfall import Request, waterfall  # noqa: PLC0415  # it takes our table

    request = Request(
        model=(options.model or default_model_path()).name,
        profile=options.profile or PROFILE_DEFAULT,
        prompt=options.prompt,
        pieces=delivery.pieces,
    )
    write_atomically(file, waterfall(delivery.result, request))
    output.note(f"the waterfall is in {file}")


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
