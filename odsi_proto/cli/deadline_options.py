"""How soon tokens are to come, and what is to happen when they do not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from odsi_proto.wire.codepoints import LateAction

MS_MAX = 24 * 3_600_000
"""As long as stages take steps of a request."""

LATE = {action.name.lower(): action for action in LateAction}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlineOptions:
    """What ``odsi generate`` is told; without a deadline they are ample."""

    first_token_ms: int | None = None
    per_token_ms: int | None = None
    total_ms: int | None = None
    late_action: LateAction = LateAction.CONTINUE

    @property
    def is_given(self) -> bool:
        """Whether anything was asked for."""
        return self != NO_DEADLINES


NO_DEADLINES = DeadlineOptions()


def deadline_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options, of which ``first_token_ms``, ``per_token_ms``, ``total_ms`` and ``late`` come."""
    milliseconds = click.IntRange(1, MS_MAX)
    options = (
        click.option(
            "--first-token-ms", type=milliseconds, help="At most, from the prompt to the first token."
        ),
        click.option("--per-token-ms", type=milliseconds, help="At most, from each token to the next."),
        click.option("--total-ms", type=milliseconds, help="At most, from the request to the last token."),
        click.option(
            "--late",
            type=click.Choice(list(LATE)),
            default="continue",
            show_default=True,
            help="What stages do with a step whose time is over: run it, leave it to another path of --peer, "
            "or refuse it. The client waits no longer in any case.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command
