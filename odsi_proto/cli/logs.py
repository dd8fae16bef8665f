"""Where log events go: standard error, one line each."""

import logging
import sys

import structlog

from odsi_proto.cli.output import printable


def configure_logs(level: str, *, as_json: bool) -> None:
    """Write events of ``level`` and above, as JSON where the output is JSON too."""
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if not as_json:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *([] if as_json else [_make_printable]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    # Libraries log through the standard library; aioquic's `info` is our `debug`.
    foreign = threshold if threshold == logging.DEBUG else max(threshold, logging.WARNING)
    logging.basicConfig(level=foreign, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")


def _make_printable(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Take from a peer's words what a terminal would obey."""
    return {key: printable(value) if isinstance(value, str) else value for key, value in event.items()}
