"""Renders one chat template and exits: the child process of ``chat``, which says why it is one.

Reads a JSON object from standard input, bounds itself, and writes ``{"text": ...}`` or
``{"error": ...}``. Imports nothing of the package.
"""

import json
import resource
import sys
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

ERROR_CHARS_MAX = 200
"""The text of an error may be the template's own."""


class _TooLong(Exception):
    """The output passed its bound."""


def main() -> None:
    """Render the template of standard input to standard output."""
    request = json.load(sys.stdin)
    memory, cpu = request["memory_bytes_max"], request["cpu_s_max"]
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    json.dump(_reply(request), sys.stdout)


def _reply(request: dict[str, Any]) -> dict[str, str]:
    try:
        return {"text": _render(request["template"], request["variables"], request["output_chars_max"])}
    except MemoryError:
        return {"error": f"it needs more than {request['memory_bytes_max'] >> 20} MiB"}
    except _TooLong:
        return {"error": f"its output has more than {request['output_chars_max']} characters"}
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        return {"error": _one_line(f"line {line}: {error.message}" if line else str(error))}
    except Exception as error:  # a template can raise whatever Python's operators do
        return {"error": _one_line(f"{type(error).__name__}: {error}")}


def _render(template: str, variables: dict[str, Any], chars_max: int) -> str:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    pieces, chars = [], 0
    for piece in environment.from_string(template).generate(variables):
        chars += len(piece)
        if chars > chars_max:
            raise _TooLong
        pieces.append(piece)
    return "".join(pieces)


def _raise_exception(message: object) -> NoReturn:
    """What templates call to refuse a conversation."""
    raise TemplateError(str(message))


def _to_json(value: object, indent: int | None = None) -> str:
    """Without jinja's escapes for HTML, as templates are written to expect."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _one_line(text: str) -> str:
    printable = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(printable.split())[:ERROR_CHARS_MAX]


if __name__ == "__main__":
    main()
