"""Generation in one process with the parts that a distributed run uses.

The layers may be cut as a path would cut them, and rows cross every cut, the client's included, in
the given codec: so the tokens equal those of a distributed run with the same cuts, codec and
chunks, bit for bit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from odsi_proto.errors import CapacityError, ConfigError, LocalProtocolError
from odsi_proto.kernels.chat import Message, render_chat
from odsi_proto.kernels.codecs import decode_rows, encode_rows
from odsi_proto.kernels.engine import StageEngine
from odsi_proto.kernels.head import ClientModel
from odsi_proto.kernels.sampling import Sampler
from odsi_proto.kernels.source import ModelSource
from odsi_proto.kernels.tokenizer import TextTokenizer
from odsi_proto.wire.tensor import ActivationCodec

REQUEST_ID = bytes(16)
"""One request at a time has the engines to itself."""


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One generated token."""

    token_id: int
    """The end token, if it came, included."""
    position: int
    """In the sequence, prompt included, from 0."""


def prompt_tokens(
    source: ModelSource, tokenizer: TextTokenizer, prompt: str, *, chat: bool, context: int
) -> list[int]:
    """The ids of ``prompt``, as one user message in the model's chat template or as raw text.

    Raises ``ConfigError`` for an empty prompt, ``CapacityError`` for one longer than ``context``
    and ``ModelError`` for a template that can not be used.
    """
    if not prompt:
        raise ConfigError("the prompt is empty")
    if chat:
        ids = tokenizer.encode(render_chat(source, tokenizer, [Message("user", prompt)]))
    else:
        ids = tokenizer.encode(prompt)
        if tokenizer.adds_bos and tokenizer.bos_id is not None:
            ids.insert(0, tokenizer.bos_id)
    if not ids:
        raise ConfigError("the prompt has no tokens")
    if len(ids) > context:
        raise CapacityError(f"the prompt has {len(ids)} tokens, the model's context is {context}")
    return ids


def positions_needed(prompt_count: int, max_tokens: int, context: int) -> int:
    """Positions that a request takes at most: the last token is returned and not run."""
    return min(prompt_count + max_tokens - 1, context)


def generate_local(
    client: ClientModel,
    engines: Sequence[StageEngine],
    prompt_ids: Sequence[int],
    *,
    sampler: Sampler,
    max_tokens: int,
    end_ids: frozenset[int],
    codec: ActivationCodec,
    chunk_positions: int,
) -> Iterator[TokenEvent]:
    """Yield tokens until an end token, ``max_tokens`` of them or the end of the context.

    ``engines`` run consecutive ranges from layer 0 to the last; ``chunk_positions`` is how many
    positions of the prompt make one step.
    """
    _check_covers(client, engines)
    if max_tokens < 1:
        raise ConfigError(f"{max_tokens} tokens asked for, expected at least 1")
    positions_max = positions_needed(len(prompt_ids), max_tokens, client.config.context)
    opened: list[StageEngine] = []
    try:
        for engine in engines:
            engine.open(REQUEST_ID, positions_max)
            opened.append(engine)
        for first in range(0, len(prompt_ids), chunk_positions):
            chunk = prompt_ids[first : first + chunk_positions]
            payload = _step(client, engines, first, chunk, codec)
        for position in range(len(prompt_ids), len(prompt_ids) + max_tokens):
            token_id = sampler.pick(
                client.logits(decode_rows(codec, memoryview(payload), client.config.width))
            )
            yield TokenEvent(token_id, position)
            if token_id in end_ids or position >= positions_max:
                return
            payload = _step(client, engines, position, (token_id,), codec)
    finally:
        for engine in opened:
            engine.close(REQUEST_ID)


def _step(
    client: ClientModel,
    engines: Sequence[StageEngine],
    first: int,
    token_ids: Sequence[int],
    codec: ActivationCodec,
) -> bytearray:
    """The last row of one step through all engines, as it would travel back to the client."""
    payload = encode_rows(codec, client.embed(token_ids))
    for engine in engines:
        payload = engine.step(
            REQUEST_ID,
            first_position=first,
            payload=memoryview(payload),
            codec_in=codec,
            codec_out=codec,
            rows_out_max=1 if engine is engines[-1] else len(token_ids),
        )
    return payload


def _check_covers(client: ClientModel, engines: Sequence[StageEngine]) -> None:
    next_layer = 0
    for engine in engines:
        if engine.layers.first != next_layer:
            raise LocalProtocolError(f"layers {engine.layers} follow layer {next_layer}")
        next_layer = engine.layers.end
    if next_layer != client.config.layers_count:
        raise LocalProtocolError(f"the engines end at layer {next_layer} of {client.config.layers_count}")
