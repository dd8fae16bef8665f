"""What ``generate`` and ``demo`` are both told: the prompt, how to sample, how activations travel."""

import functools
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import click

from odsi_proto.cli.deadline_options import NO_DEADLINES, DeadlineOptions
from odsi_proto.cli.params import model_option, threads_option
from odsi_proto.errors import ConfigError
from odsi_proto.wire.tensor import ActivationCodec

PROMPT_BYTES_MAX = 1 << 20
"""From standard input. Any context is full long before; an endless input is not read for ever."""

TOKENS_MAX = 1 << 20
"""Above the longest context of any model; the context ends a generation first."""

SEED_BITS = 63


class Profile(NamedTuple):
    """How layers are computed and how rows travel; the name of the first is what nodes are told."""

    computes: str
    """A key of ``node.settings.PROFILES``."""
    codec: ActivationCodec


PROFILES = {
    "exact": Profile("exact", ActivationCodec.F32),
    "f16": Profile("exact", ActivationCodec.F16),
    "fast": Profile("fast", ActivationCodec.F16),
}
"""By the name people give."""

PROFILE_DEFAULT = "f16"
"""Over nodes: half the bytes, and one step of a small model fits in one datagram."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOptions:
    """How tokens are chosen: ``kernels.sampling.Sampling``, without waiting for torch."""

    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    seed: int | None = None
    """``None`` only if greedy: what was drawn at random can still be repeated."""

    def flags(self) -> list[str]:
        """These options as a command line says them."""
        if self.seed is None:
            return ["--greedy"]
        return [f"--temperature={self.temperature}", f"--top-p={self.top_p}", f"--seed={self.seed}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOptions:
    """What is to be generated."""

    prompt: str
    chat: bool
    """Whether the prompt is one user's message in the model's chat template."""
    max_tokens: int
    sampling: SamplingOptions
    profile: str | None
    """A key of ``PROFILES``; ``None`` if nothing was said."""
    model: Path | None
    threads: int
    deadlines: DeadlineOptions = NO_DEADLINES

    def chosen(self, default_profile: str) -> Profile:
        """How to compute and how activations travel."""
        return PROFILES[self.profile or default_profile]


def generation_options(*, prompt: str | None, max_tokens: int) -> Callable[[Callable[..., None]], Any]:
    """Options of a command that generates; it is called with one ``options`` for all of them."""

    def decorate(command: Callable[..., None]) -> Any:
        @functools.wraps(command)
        def wrapper(
            *,
            prompt: str,
            chat: bool,
            max_tokens: int,
            greedy: bool,
            temperature: float | None,
            top_p: float | None,
            seed: int | None,
            profile: str | None,
            model: Path | None,
            threads: int,
            **others: Any,
        ) -> None:
            options = GenerationOptions(
                prompt=read_prompt(prompt),
                chat=chat,
                max_tokens=max_tokens,
                sampling=_sampling(greedy=greedy, temperature=temperature, top_p=top_p, seed=seed),
                profile=profile,
                model=model,
                threads=threads,
            )
            command(options=options, **others)

        for option in reversed(_options(prompt, max_tokens)):
            wrapper = option(wrapper)
        return wrapper

    return decorate


def read_prompt(text: str) -> str:
    """The prompt itself: ``-`` stands for standard input, without its last line feed."""
    if text == "-":
        data = sys.stdin.buffer.read(PROMPT_BYTES_MAX + 1)
        if len(data) > PROMPT_BYTES_MAX:
            raise ConfigError(f"the prompt on standard input is longer than {PROMPT_BYTES_MAX} bytes")
        try:
            text = data.decode("utf-8").removesuffix("\n")
        except UnicodeDecodeError as error:
            raise ConfigError(f"the prompt on standard input is not UTF-8: {error.reason}") from error
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # what Python makes of an argument in another encoding
        raise ConfigError("the prompt is not UTF-8") from error
    if not text.strip():
        raise ConfigError("the prompt is empty")
    return text


def _sampling(
    *, greedy: bool, temperature: float | None, top_p: float | None, seed: int | None
) -> SamplingOptions:
    if temperature is None and top_p is None and seed is None:
        return SamplingOptions()
    if greedy:
        raise click.UsageError("--greedy excludes --temperature, --top-p and --seed")
    return SamplingOptions(
        temperature=1.0 if temperature is None else temperature,
        top_p=1.0 if top_p is None else top_p,
        seed=secrets.randbits(SEED_BITS) if seed is None else seed,
    )


def _options(prompt: str | None, max_tokens: int) -> list[Callable[..., Any]]:
    prompt_help = "The prompt; - reads it from standard input."
    # A default of None would satisfy `required`.
    given: dict[str, Any] = (
        {"required": True} if prompt is None else {"default": prompt, "show_default": True}
    )
    chat_help = "Take the prompt as a user's message in the model's chat template, or as it is."
    profile_help = (
        "Compute in binary32, and send it or half of it; or compute with packed weights, and send half."
        "  [default: f16; exact with --local]"
    )
    return [
        click.option("--prompt", help=prompt_help, **given),
        click.option("--chat/--raw", "chat", default=True, show_default=True, help=chat_help),
        click.option(
            "--max-tokens",
            type=click.IntRange(1, TOKENS_MAX),
            default=max_tokens,
            show_default=True,
            help="Stop after so many tokens.",
        ),
        click.option("--greedy", is_flag=True, help="Always take the likeliest token. This is the default."),
        click.option(
            "--temperature",
            type=click.FloatRange(0, 100),
            help="Sample: 1 follows the model, less is more predictable.  [default when sampling: 1]",
        ),
        click.option(
            "--top-p",
            type=click.FloatRange(0, 1, min_open=True),
            help="Sample among the likeliest tokens that have this probability together.",
        ),
        click.option(
            "--seed",
            type=click.IntRange(0, 2**SEED_BITS - 1),
            help="Sample the same way again.  [default: random]",
        ),
        click.option("--profile", type=click.Choice(list(PROFILES)), help=profile_help),
        model_option,
        threads_option,
    ]
