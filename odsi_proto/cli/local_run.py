"""The engine in one process, with a clock at each part: what a distributed run is compared with.

Cut like a path and given its codec, it makes the same tokens and the same measurements, except
that nothing waits or travels.
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from torch import Tensor

from odsi_proto.cli.generation_options import GenerationOptions
from odsi_proto.cli.output import ProgressBar
from odsi_proto.errors import ConfigError
from odsi_proto.kernels.config import ModelConfig
from odsi_proto.kernels.engine import StageEngine
from odsi_proto.kernels.head import ClientModel
from odsi_proto.kernels.hyperparameters import read_config
from odsi_proto.kernels.local import generate_local, prompt_tokens
from odsi_proto.kernels.manifest import load_or_build, sidecar_path
from odsi_proto.kernels.model_path import default_model_path, open_source
from odsi_proto.kernels.sampling import Sampler, Sampling
from odsi_proto.kernels.tokenizer import TextTokenizer
from odsi_proto.kernels.vocabulary import load_tokenizer
from odsi_proto.limits import PREFILL_CHUNK_POSITIONS
from odsi_proto.node.result import (
    ClientReport,
    FinishReason,
    GenerationResult,
    Spread,
    StageReport,
    TokenEvent,
)
from odsi_proto.node.settings import PROFILES as NODE_PROFILES
from odsi_proto.routing.path import even_cuts
from odsi_proto.units import LayerRange, Micros, Position

NOTHING = Spread(0, 0, 0)
"""In a single process nothing waits or travels."""

LOCAL_PROFILE_DEFAULT = "exact"
"""Nothing travels, so nothing is gained by rounding what would."""


class _TimedStage(StageEngine):
    """A stage that notes how long each step takes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.step_us: list[int] = []

    def step(self, *args: Any, **kwargs: Any) -> bytearray:
        """As the engine's."""
        started_us = _now_us()
        payload = super().step(*args, **kwargs)
        self.step_us.append(_now_us() - started_us)
        return payload


class _TimedClient(ClientModel):
    """A client's part that notes how long each call takes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.embed_us: list[int] = []
        self.head_us: list[int] = []

    def embed(self, token_ids: Sequence[int]) -> Tensor:
        """As the client's."""
        started_us = _now_us()
        rows = super().embed(token_ids)
        self.embed_us.append(_now_us() - started_us)
        return rows

    def logits(self, row: Tensor) -> Tensor:
        """As the client's."""
        started_us = _now_us()
        logits = super().logits(row)
        self.head_us.append(_now_us() - started_us)
        return logits


class _TimedSampler(Sampler):
    """A sampler that notes how long each choice takes."""

    def __init__(self, sampling: Sampling) -> None:
        super().__init__(sampling)
        self.pick_us: list[int] = []

    def pick(self, logits: Tensor) -> int:
        """As the sampler's."""
        started_us = _now_us()
        token_id = super().pick(logits)
        self.pick_us.append(_now_us() - started_us)
        return token_id


def run_locally(
    options: GenerationOptions, *, stages: int | None, cuts: tuple[int, ...] | None, progress: ProgressBar
) -> Iterator[TokenEvent | GenerationResult]:
    """Generate in this process; the last item is the result."""
    with open_source(options.model or default_model_path()) as source:
        tokenizer = load_tokenizer(source)
        config = read_config(source)
        prompt_ids = prompt_tokens(
            source, tokenizer, options.prompt, chat=options.chat, context=config.context
        )
        manifest = load_or_build(source) if sidecar_path(source.path).exists() else None
        profile = NODE_PROFILES[options.chosen(LOCAL_PROFILE_DEFAULT).computes]
        client = _TimedClient.load(source, manifest, profile=profile, threads=options.threads)
        engines = [
            _TimedStage.load(
                source,
                manifest,
                layers,
                profile=profile,
                threads=options.threads,
                progress=partial(progress, f"loading layers {layers}"),
            )
            for layers in _ranges(config, stages, cuts)
        ]
    progress.close()
    yield from _measured(options, client, engines, tokenizer, prompt_ids)


def _measured(
    options: GenerationOptions,
    client: _TimedClient,
    engines: Sequence[_TimedStage],
    tokenizer: TextTokenizer,
    prompt_ids: Sequence[int],
) -> Iterator[TokenEvent | GenerationResult]:
    how = options.sampling
    sampler = _TimedSampler(Sampling(temperature=how.temperature, top_p=how.top_p, seed=how.seed))
    text = tokenizer.stream()
    token_ids: list[int] = []
    came_us, callers_us = [_now_us()], []
    for token in generate_local(
        client,
        engines,
        prompt_ids,
        sampler=sampler,
        max_tokens=options.max_tokens,
        end_ids=tokenizer.end_ids,
        codec=options.chosen(LOCAL_PROFILE_DEFAULT).codec,
        chunk_positions=PREFILL_CHUNK_POSITIONS,
    ):
        came_us.append(_now_us())
        token_ids.append(token.token_id)
        piece = text.push(token.token_id)
        yield TokenEvent(token_id=token.token_id, position=Position(token.position), text=piece)
        callers_us.append(_now_us() - came_us[-1])
    chunks = -(-len(prompt_ids) // PREFILL_CHUNK_POSITIONS)
    reports = tuple(_stage_report(engine, chunks) for engine in engines)
    tokens_us = [came - before for before, came in pairwise(came_us[1:])]
    known_us = zip(
        callers_us,
        client.embed_us[chunks:],
        client.head_us[1:],
        sampler.pick_us[1:],
        *(engine.step_us[chunks:] for engine in engines),
        strict=False,  # nothing is embedded after the last token
    )
    rest_us = (token_us - sum(parts_us) for token_us, parts_us in zip(tokens_us, known_us, strict=True))
    yield GenerationResult(
        text=tokenizer.decode(token_ids),
        token_ids=tuple(token_ids),
        prompt_positions=len(prompt_ids),
        finish_reason=_finish_reason(token_ids, tokenizer.end_ids, options.max_tokens),
        first_token_us=Micros(came_us[1] - came_us[0]),
        tokens_per_second=(len(token_ids) - 1) * 1e6 / max(1, came_us[-1] - came_us[1]),
        token=Spread.of(tokens_us),
        unaccounted=Spread.of(rest_us),
        stages=reports,
        client=_client_report(callers_us[:-1], client, sampler, chunks),
        budgets=None,
        steps=(),
        replayed_positions=len(prompt_ids),
        steps_left_out=0,
    )


def _client_report(
    callers_us: Sequence[int], client: _TimedClient, sampler: _TimedSampler, chunks: int
) -> ClientReport:
    return ClientReport(
        caller=Spread.of(callers_us),
        embed=Spread.of(client.embed_us[chunks:]),
        send=NOTHING,
        returned=NOTHING,
        head=Spread.of(client.head_us[1:]),
        sample=Spread.of(sampler.pick_us[1:]),
        bytes_per_token=0,
    )


def _stage_report(engine: _TimedStage, chunks: int) -> StageReport:
    compute = Spread.of(engine.step_us[chunks:])
    return StageReport(
        participant=None,
        layers=engine.layers,
        transfer=NOTHING,
        queue=NOTHING,
        compute=compute,
        coordination=NOTHING,
        total=compute,
        bytes_per_token=0,
    )


def _finish_reason(token_ids: Sequence[int], end_ids: frozenset[int], max_tokens: int) -> FinishReason:
    if token_ids[-1] in end_ids:
        return FinishReason.END_TOKEN
    return FinishReason.MAX_TOKENS if len(token_ids) == max_tokens else FinishReason.CONTEXT_FULL


def _ranges(config: ModelConfig, stages: int | None, cuts: tuple[int, ...] | None) -> tuple[LayerRange, ...]:
    if cuts is None:
        return even_cuts(config.layers_count, stages or 1)
    if cuts[-1] >= config.layers_count:
        raise ConfigError(f"a cut at layer {cuts[-1]}: the model has layers 0-{config.layers_count}")
    bounds = (0, *cuts, config.layers_count)
    return tuple(LayerRange(first, end) for first, end in pairwise(bounds))


def _now_us() -> int:
    return time.monotonic_ns() // 1_000
