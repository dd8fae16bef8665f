"""The chat template that a model file carries, rendered where it can do no harm.

A template is a program, and a model file comes from strangers. Jinja's immutable sandbox keeps it
from objects it should not see, but nothing inside a process bounds ``{{ 'x'|center(10**9) }}`` or
a loop in a loop; so it runs in a child process with little memory, little time and nothing to find.
The child is ``chat_child.py``, run by its path so that it imports jinja2 and no more.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn, TypedDict

from odsi_proto.kernels.source import ModelSource
from odsi_proto.kernels.tokenizer import TextTokenizer

TEMPLATE_CHARS_MAX = 262_144
"""The longest in use, with tool descriptions, have some 20,000."""

OUTPUT_CHARS_MAX = 4_194_304
"""More text than any context here holds."""

MEMORY_BYTES_MAX = 512 << 20
"""Address space of the child: an interpreter with jinja2 takes some 60 MB."""

CPU_S_MAX = 2
"""Start-up takes 0.1 s, an honest template under a millisecond."""

WALL_S_MAX = 30.0
"""For a machine too busy to run the child at all: a template can compute, which CPU time bounds, but
it can not wait."""

_CHILD = Path(__file__).with_name("chat_child.py")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class _Reply(TypedDict, total=False):
    """What the child prints: one of these."""

    text: str
    error: str


def render_chat(source: ModelSource, tokenizer: TextTokenizer, messages: Sequence[Message]) -> str:
    """``messages`` as the model's template has them, ready for the answer; raises ``ModelError``."""
    template = source.chat_template
    if template is None:
        source.fail("has no chat template; use --raw")
    if len(template) > TEMPLATE_CHARS_MAX:
        source.fail(
            f"the chat template has {len(template)} characters, expected at most {TEMPLATE_CHARS_MAX}"
        )
    request = {
        "template": template,
        "variables": {
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "bos_token": tokenizer.bos_text,
            "eos_token": tokenizer.eos_text,
            "add_generation_prompt": True,
        },
        "output_chars_max": OUTPUT_CHARS_MAX,
        "memory_bytes_max": MEMORY_BYTES_MAX,
        "cpu_s_max": CPU_S_MAX,
    }
    reply = _run_child(source, json.dumps(request).encode())
    if "text" not in reply:
        source.fail(f"the chat template failed: {reply.get('error', 'no answer')}; --raw does without it")
    return reply["text"]


def _run_child(source: ModelSource, request: bytes) -> _Reply:
    try:
        # -P keeps the modules beside the child, some named like the library's, off its path.
        child = subprocess.run(
            [sys.executable, "-P", str(_CHILD)],
            input=request,
            capture_output=True,
            timeout=WALL_S_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        source.fail(f"the chat template did not come to run within {WALL_S_MAX:g} s; is the machine busy?")
    if child.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        source.fail(f"the chat template used more than {CPU_S_MAX} s of processor time")
    if child.returncode:
        _fail_crashed(source, child.returncode, child.stderr)
    reply: _Reply = json.loads(child.stdout)
    return reply


def _fail_crashed(source: ModelSource, status: int, stderr: bytes) -> NoReturn:
    last = stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
    source.fail(f"the process for the chat template ended with status {status}: {''.join(last)[:200]}")
