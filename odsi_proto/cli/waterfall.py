"""Where the time of one request went, token by token: one HTML file that needs nothing beside it.

A row for each prompt chunk and each token, cut into what every hop and the client did. The rows are
made in the browser, only those in sight; a table with the same sums stands in the page as text, for
readers without scripts and for print.

No clock is shared with the stages: they report durations. So a row begins and ends when the client
says, and between its sending and the arrival of its rows the durations stand in the path's order. The
page says so.

What stages report, names of models, and every word of the prompt and the answer are hostile; numbers are
bounded here, text is the business of :mod:`odsi_proto.page`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from odsi_proto import __version__
from odsi_proto.cli.delivery import PART_HEADINGS, part_rows, summary
from odsi_proto.node.result import GenerationResult, HopTimes, StepTimes
from odsi_proto.page import clean, page, shown
from odsi_proto.wire.frames import StatusFlag
from odsi_proto.wire.identity import participant_short

PIECE_CHARS_MAX = 64
"""Of the text of one token: more than any vocabulary has, and every row has one."""

DURATION_US_MAX = 1 << 48
"""Nine years: a stage that reports more does not make the page's numbers inexact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked for."""

    model: str
    profile: str
    prompt: str
    pieces: Sequence[str]
    """What each token added to the text, in order."""


def waterfall(result: GenerationResult, request: Request) -> str:
    """The page of a generation over nodes."""
    return page(
        _resource("waterfall.html"),
        title=_title(result),
        style=_resource("waterfall.css"),
        script=_resource("waterfall.js"),
        data=_data(result, request.pieces),
        heading=_heading(result, request),
        table=_table(result),
    )


def _title(result: GenerationResult) -> str:
    if result.failure is not None:
        return "odsi: where the time went until it failed"
    return f"odsi: where the time of {len(result.token_ids)} tokens went"


def _heading(result: GenerationResult, request: Request) -> str:
    facts = [
        ("model", request.model),
        ("profile", request.profile),
        ("prompt", _prompt(result, request)),
        ("answer", summary(result)),
        ("odsi", __version__),
    ]
    if result.failure is not None:
        facts.insert(0, ("failed", result.failure))
    if result.budgets is not None:
        first_s, token_s = result.budgets.first_token_us / 1e6, result.budgets.per_token_us / 1e6
        total_us = result.budgets.total_us
        total = "" if total_us is None else f", {round(total_us / 1e6, 3):g} s in all"
        facts.append(("budgets", f"first token {first_s:g} s, each further token {token_s:g} s{total}"))
    if result.reroutes:
        what = f"{result.reroutes}; drawn is what the last path did, which ran all before it again"
        facts.append(("reroutes", what))
    if result.steps_left_out:
        facts.append(("left out", f"{result.steps_left_out} steps after the first {len(result.steps)}"))
    lines = [
        f'<div class="{name.replace(" ", "-")}"><dt>{shown(name)}</dt><dd>{shown(value)}</dd></div>'
        for name, value in facts
    ]
    return "\n".join(lines)


def _prompt(result: GenerationResult, request: Request) -> str:
    text = _shortened(request.prompt, 160)
    return f"{result.prompt_positions} positions: {text}" if result.steps else text


def _table(result: GenerationResult) -> str:
    head = "".join(f'<th scope="col">{shown(name)}</th>' for name in PART_HEADINGS)
    rows = [
        "<tr>" + "".join(f"<td>{shown(cell)}</td>" for cell in cells) + "</tr>" for cells in part_rows(result)
    ]
    return f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody>"


def _data(result: GenerationResult, pieces: Sequence[str]) -> object:
    budgets = result.budgets
    own = pieces[result.replayed_positions - result.prompt_positions :]  # of the tokens that are drawn
    return {
        "stages": [
            {
                "name": "" if stage.participant is None else participant_short(stage.participant),
                "layers": str(stage.layers),
            }
            for stage in result.stages
        ],
        "budgets": None if budgets is None else [budgets.first_token_us, budgets.per_token_us],
        "prompt_positions": result.replayed_positions,
        "failed_at": result.failed_at_us,
        "steps": [_row(step) for step in result.steps],
        "pieces": [clean(_shortened(piece, PIECE_CHARS_MAX)) for piece in own],
    }


def _row(step: StepTimes) -> list[object]:
    """In the order of the columns in ``waterfall.js``."""
    own = (
        *(step.position, step.positions, step.begun_us, step.embed_us, step.send_us),
        *(step.return_us, step.arrived_us, step.head_us, step.sample_us, step.done_us),
    )
    return [*map(_bounded, own), [None if hop is None else _hop(hop) for hop in step.hops]]


def _hop(hop: HopTimes) -> list[int]:
    times = (hop.transfer_us, hop.queue_us, hop.compute_us, hop.coordination_us, hop.remaining_us)
    return [*map(_bounded, times), hop.flags & _FLAGS]


def _bounded(number: int) -> int:
    return min(number, DURATION_US_MAX)


def _shortened(text: str, chars_max: int) -> str:
    return text if len(text) <= chars_max else f"{text[: chars_max - 1]}…"


_FLAGS = int(StatusFlag.LATE | StatusFlag.OVER_BUDGET)
"""What the script knows."""


def _resource(name: str) -> str:
    return resources.files("odsi_proto.cli").joinpath(name).read_text(encoding="utf-8")
