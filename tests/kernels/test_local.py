"""Generation in one process: the answers of llama.cpp, and the same answers however the layers are cut."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
from kernels.conftest import ReferenceCase, reference_cases
from kernels.tiny_llama import TinyShape, write_tiny

from odsi_proto.errors import CapacityError, ConfigError, LocalProtocolError, ModelError
from odsi_proto.kernels.engine import StageEngine
from odsi_proto.kernels.gguf import GgufFile
from odsi_proto.kernels.head import ClientModel
from odsi_proto.kernels.local import REQUEST_ID, generate_local, positions_needed, prompt_tokens
from odsi_proto.kernels.sampling import Sampler, Sampling
from odsi_proto.kernels.tokenizer import TextTokenizer
from odsi_proto.kernels.vocabulary import load_tokenizer
from odsi_proto.units import LayerRange
from odsi_proto.wire.manifest import ModelManifest
from odsi_proto.wire.tensor import ActivationCodec

CHUNK = 128
CASES = {case.id: case for case in reference_cases()}


def generate(
    client: ClientModel,
    engines: Sequence[StageEngine],
    prompt_ids: Sequence[int],
    max_tokens: int,
    *,
    end_ids: frozenset[int] = frozenset((2,)),
    codec: ActivationCodec = ActivationCodec.F32,
    chunk: int = CHUNK,
    sampling: Sampling | None = None,
) -> list[int]:
    events = generate_local(
        client,
        engines,
        prompt_ids,
        sampler=Sampler(sampling or Sampling.greedy()),
        max_tokens=max_tokens,
        end_ids=end_ids,
        codec=codec,
        chunk_positions=chunk,
    )
    return [event.token_id for event in events]


# The shipped model.


def test_greedy_tokens_are_those_of_llama_cpp(
    client: ClientModel, whole: StageEngine, reference: ReferenceCase
) -> None:
    found = generate(client, [whole], reference.prompt_ids, len(reference.greedy_ids))
    assert found == reference.greedy_ids


def test_the_logits_after_the_prompt_are_those_of_llama_cpp(
    client: ClientModel, whole: StageEngine, reference: ReferenceCase
) -> None:
    whole.open(REQUEST_ID, len(reference.prompt_ids))
    rows = whole.run(REQUEST_ID, 0, client.embed(reference.prompt_ids))
    whole.close(REQUEST_ID)
    logits, tokens = client.logits(rows[-1]).topk(10)
    assert tokens.tolist() == list(reference.first_logits)
    assert logits.tolist() == pytest.approx(list(reference.first_logits.values()), abs=1e-3)


@pytest.fixture(scope="module")
def thirds(shipped: GgufFile, manifest: ModelManifest) -> list[StageEngine]:
    cuts = [LayerRange(0, 10), LayerRange(10, 20), LayerRange(20, 30)]
    return [StageEngine.load(shipped, manifest, layers) for layers in cuts]


def test_three_stages_give_the_tokens_of_llama_cpp(client: ClientModel, thirds: list[StageEngine]) -> None:
    case = CASES["haiku"]
    assert generate(client, thirds, case.prompt_ids, len(case.greedy_ids)) == case.greedy_ids


def test_a_prompt_in_chunks_gives_the_tokens_of_llama_cpp(client: ClientModel, whole: StageEngine) -> None:
    case = CASES["capital"]
    assert generate(client, [whole], case.prompt_ids, 8, chunk=16) == case.greedy_ids


def test_f16_between_stages_gives_the_tokens_of_llama_cpp_where_the_margin_is_wide(
    client: ClientModel, thirds: list[StageEngine]
) -> None:
    case = CASES["quic"]  # its smallest margin is 0.24
    found = generate(client, thirds, case.prompt_ids, len(case.greedy_ids), codec=ActivationCodec.F16)
    assert found == case.greedy_ids


@pytest.mark.parametrize("mode", ["chat", "raw"])
def test_prompts_become_the_ids_of_llama_cpp(shipped: GgufFile, tokenizer: TextTokenizer, mode: str) -> None:
    case = CASES["accents" if mode == "chat" else "code"]
    assert (
        prompt_tokens(shipped, tokenizer, case.prompt, chat=mode == "chat", context=8192) == case.prompt_ids
    )


# Tiny models.

PROMPT = [1, 75, 104, 40, 7, 200, 199]
ENDLESS: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True)
class Tiny:
    """A tiny model, whole and in three stages."""

    client: ClientModel
    whole: list[StageEngine]
    thirds: list[StageEngine]


@pytest.fixture
def tiny(tiny_path: Path) -> Tiny:
    with GgufFile(tiny_path) as file:
        return Tiny(
            client=ClientModel.load(file, None),
            whole=[StageEngine.load(file, None, LayerRange(0, 3))],
            thirds=[StageEngine.load(file, None, LayerRange(i, i + 1)) for i in range(3)],
        )


def test_cuts_change_no_token(tiny: Tiny) -> None:
    uncut = generate(tiny.client, tiny.whole, PROMPT, 40, end_ids=ENDLESS)
    assert generate(tiny.client, tiny.thirds, PROMPT, 40, end_ids=ENDLESS) == uncut


def test_sampled_tokens_are_reproduced_by_their_seed(tiny: Tiny) -> None:
    sampling = Sampling(temperature=1.0, top_p=0.9, seed=5)
    first = generate(tiny.client, tiny.whole, PROMPT, 20, end_ids=ENDLESS, sampling=sampling)
    assert generate(tiny.client, tiny.thirds, PROMPT, 20, end_ids=ENDLESS, sampling=sampling) == first
    assert first != generate(tiny.client, tiny.whole, PROMPT, 20, end_ids=ENDLESS)


def test_the_end_token_is_the_last_one_given(tiny: Tiny) -> None:
    tokens = generate(tiny.client, tiny.whole, PROMPT, 20, end_ids=ENDLESS)
    end = tokens[4]
    stopped = generate(tiny.client, tiny.whole, PROMPT, 20, end_ids=frozenset((end,)))
    assert stopped == tokens[: tokens.index(end) + 1]


@pytest.mark.parametrize("max_tokens", [1, 2, 7])
def test_at_most_so_many_tokens_come(tiny: Tiny, max_tokens: int) -> None:
    assert len(generate(tiny.client, tiny.whole, PROMPT, max_tokens, end_ids=ENDLESS)) == max_tokens


def test_the_context_ends_an_answer(tiny: Tiny) -> None:
    # 64 positions hold 7 tokens of prompt and 57 of the answer; one more follows from the last of them.
    assert len(generate(tiny.client, tiny.whole, PROMPT, 1_000, end_ids=ENDLESS)) == 58


def test_a_prompt_as_long_as_the_context_still_has_one_answer(tiny: Tiny) -> None:
    assert len(generate(tiny.client, tiny.whole, [5] * 64, 1_000, end_ids=ENDLESS)) == 1


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "positions"), [(7, 1, 7), (7, 10, 16), (7, 58, 64), (7, 99, 64)]
)
def test_the_last_token_needs_no_position(prompt: int, max_tokens: int, positions: int) -> None:
    assert positions_needed(prompt, max_tokens, 64) == positions


def test_an_abandoned_answer_gives_its_memory_back(tiny: Tiny) -> None:
    events = generate_local(
        tiny.client,
        tiny.thirds,
        PROMPT,
        sampler=Sampler(Sampling.greedy()),
        max_tokens=9,
        end_ids=ENDLESS,
        codec=ActivationCodec.F32,
        chunk_positions=CHUNK,
    )
    next(events)
    assert all(engine.kv_bytes_used for engine in tiny.thirds)
    events.close()
    assert not any(engine.kv_bytes_used for engine in tiny.thirds)


@pytest.mark.parametrize("order", [(0, 2), (1, 0, 2), (0, 1), (0, 1, 1, 2), ()])
def test_layers_with_a_gap_or_an_overlap_are_refused(tiny: Tiny, order: tuple[int, ...]) -> None:
    with pytest.raises(LocalProtocolError, match=r"layers|engines"):
        generate(tiny.client, [tiny.thirds[index] for index in order], PROMPT, 1)


def test_no_tokens_can_not_be_asked_for(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="0 tokens asked for, expected at least 1"):
        generate(tiny.client, tiny.whole, PROMPT, 0)


@pytest.mark.parametrize("token", [-1, 265])
def test_a_token_outside_the_vocabulary_is_refused(tiny: Tiny, token: int) -> None:
    with pytest.raises(LocalProtocolError, match="token ids must be 0 to 264"):
        tiny.client.embed([token])


# Prompts.


@pytest.mark.parametrize("chat", [True, False])
def test_an_empty_prompt_is_refused(shipped: GgufFile, tokenizer: TextTokenizer, chat: bool) -> None:
    with pytest.raises(ConfigError, match="the prompt is empty"):
        prompt_tokens(shipped, tokenizer, "", chat=chat, context=8192)


def test_a_prompt_may_fill_the_context_and_not_pass_it(shipped: GgufFile, tokenizer: TextTokenizer) -> None:
    assert len(prompt_tokens(shipped, tokenizer, " word" * 20, chat=False, context=20)) == 20
    with pytest.raises(CapacityError, match="the prompt has 21 tokens, the model's context is 20"):
        prompt_tokens(shipped, tokenizer, " word" * 21, chat=False, context=20)


def test_a_model_without_a_template_says_how_to_go_on(tmp_path: Path) -> None:
    write_tiny(tmp_path / "t.gguf", TinyShape(), chat_template=None)
    with GgufFile(tmp_path / "t.gguf") as file:
        tokenizer = load_tokenizer(file)
        with pytest.raises(ModelError, match=r"t\.gguf: has no chat template; use --raw"):
            prompt_tokens(file, tokenizer, "hello", chat=True, context=64)
        assert tokenizer.decode(prompt_tokens(file, tokenizer, "hello", chat=False, context=64)) == "hello"
