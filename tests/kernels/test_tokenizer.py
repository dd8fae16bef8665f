"""Text to ids and back, for the shipped vocabulary and for hostile ones."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels.conftest import REFERENCE, ReferenceCase
from kernels.tiny_llama import CONTROL_TOKENS, TOKENS
from tokenizers import decoders

from odsi_proto.errors import ConfigError, ModelError
from odsi_proto.kernels.gguf import GgufFile
from odsi_proto.kernels.gguf_tokenizer import PRE_TOKENIZERS
from odsi_proto.kernels.tokenizer import TextTokenizer
from odsi_proto.kernels.vocabulary import load_tokenizer

Writer = gguf.GGUFWriter


def test_the_vendored_answers_are_the_ones_that_were_made() -> None:
    for line in (REFERENCE / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((REFERENCE / name).read_bytes()).hexdigest() == digest


def test_prompts_have_the_ids_of_llama_cpp(tokenizer: TextTokenizer, reference: ReferenceCase) -> None:
    assert tokenizer.encode(reference.rendered) == reference.prompt_ids


def test_answers_have_the_text_of_llama_cpp(tokenizer: TextTokenizer, reference: ReferenceCase) -> None:
    assert tokenizer.decode(reference.greedy_ids) == reference.text


def test_the_shipped_model_ends_answers_with_its_end_token(tokenizer: TextTokenizer) -> None:
    assert tokenizer.end_ids == {2}
    assert (tokenizer.bos_text, tokenizer.eos_text) == ("<|im_start|>", "<|im_end|>")
    assert not tokenizer.adds_bos


@given(text=st.text(st.characters(categories=("L", "M", "N", "P", "S", "Zs"), include_characters="\n\t")))
def test_text_comes_back(tokenizer: TextTokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(ids=st.lists(st.integers(0, 49_151), max_size=20))
def test_a_stream_joins_to_what_decoding_at_once_gives(tokenizer: TextTokenizer, ids: list[int]) -> None:
    stream = tokenizer.stream()
    assert "".join([*map(stream.push, ids), stream.finish()]) == tokenizer.decode(ids)


@given(ids=st.lists(st.integers(0, 49_151), max_size=20))
def test_decoding_equals_that_of_the_tokenizers_library(
    tokenizer: TextTokenizer, ids: list[int], plain_decoder: Callable[[list[int]], str]
) -> None:
    assert tokenizer.decode(ids) == plain_decoder(ids)


@pytest.fixture(scope="session")
def plain_decoder(shipped: GgufFile) -> Callable[[list[int]], str]:
    """The library's byte-level decoder over the file's tokens, control tokens left out."""
    tokens = shipped.texts("tokenizer.ggml.tokens") or []
    types = shipped.integers("tokenizer.ggml.token_type") or []
    decoder = decoders.ByteLevel()
    return lambda ids: decoder.decode([tokens[token] for token in ids if types[token] == 1])


def test_a_stream_never_shows_half_a_character(tokenizer: TextTokenizer) -> None:
    ids = tokenizer.encode("🎄é")
    stream = tokenizer.stream()
    pieces = [stream.push(token) for token in ids]
    assert len(ids) > 2
    assert set(pieces) <= {"", "🎄", "é", "🎄é"}
    assert "".join(pieces) == "🎄é"
    assert stream.finish() == ""


def test_a_stream_that_ends_inside_a_character_says_so_at_the_end(tokenizer: TextTokenizer) -> None:
    stream = tokenizer.stream()
    assert stream.push(tokenizer.encode("🎄")[0]) == ""
    assert stream.finish() == "\N{REPLACEMENT CHARACTER}"


def test_an_id_outside_the_vocabulary_is_no_text(tokenizer: TextTokenizer) -> None:
    assert tokenizer.decode([-1, 49_152, 2**40]) == ""


def test_a_byte_that_has_no_token_is_dropped_as_llama_cpp_drops_it(tokenizer: TextTokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a\x04b")) == "ab"


def test_half_of_a_surrogate_pair_is_not_text(tokenizer: TextTokenizer) -> None:
    with pytest.raises(ConfigError, match="the text is not valid Unicode at character 2"):
        tokenizer.encode("ab\udc80")


# Vocabularies other than the shipped one.


def write_tokenizer(path: Path, **changes: object) -> None:
    """A file with nothing but a tokenizer; None leaves a key out."""
    fields: dict[str, object] = {
        "model": "gpt2",
        "pre": "smollm",
        "tokens": list(TOKENS),
        "token_type": [3] * len(CONTROL_TOKENS) + [1] * (len(TOKENS) - len(CONTROL_TOKENS)),
        "merges": ["h e"],
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in (fields | changes).items():
        key = f"tokenizer.ggml.{name}"
        match value:
            case bool():
                writer.add_bool(key, value)
            case int():
                writer.add_int32(key, value)
            case str():
                writer.add_string(key, value)
            case list():
                writer.add_array(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def tiny_tokenizer(path: Path, **changes: object) -> TextTokenizer:
    write_tokenizer(path / "t.gguf", **changes)
    with GgufFile(path / "t.gguf") as file:
        return load_tokenizer(file)


def test_both_end_tokens_end_an_answer(tmp_path: Path) -> None:
    assert tiny_tokenizer(tmp_path, eot_token_id=0).end_ids == {0, 2}


def test_a_model_may_ask_for_a_first_token(tmp_path: Path) -> None:
    assert tiny_tokenizer(tmp_path, add_bos_token=True).adds_bos
    assert not tiny_tokenizer(tmp_path, add_bos_token=True, bos_token_id=None).adds_bos


def test_gpt_2_words_keep_digits_together(tmp_path: Path) -> None:
    tokens, merges = [*TOKENS, "12"], ["1 2"]
    types = [3] * 3 + [1] * (len(tokens) - 3)
    gpt2 = tiny_tokenizer(tmp_path, pre="gpt-2", tokens=tokens, token_type=types, merges=merges)
    smollm = tiny_tokenizer(tmp_path, pre="smollm", tokens=tokens, token_type=types, merges=merges)
    assert len(gpt2.encode("12")) == 1
    assert len(smollm.encode("12")) == 2


WORDS = {
    "qwen2": ["I", "'LL", " pay", " ", "1", "2", "3", "4", "!!\n", " ", " x"],
    "llama-bpe": ["I", "'LL", " pay", " ", "123", "4", "!!\n", " ", " x"],
}


@pytest.mark.parametrize("pre", WORDS)
def test_words_are_cut_as_the_model_was_trained(pre: str) -> None:
    cut = PRE_TOKENIZERS[pre].pre_tokenizer().pre_tokenize_str("I'LL pay 1234!!\n  x")
    words = [word.replace("Ġ", " ").replace("Ċ", "\n") for word, _ in cut]
    assert words == WORDS[pre]


def test_llama_3_takes_a_word_that_is_a_token_as_it_is(tmp_path: Path) -> None:
    tokens = [*TOKENS, "xyz"]
    types = [3] * 3 + [1] * (len(tokens) - 3)
    whole = tiny_tokenizer(tmp_path, pre="llama-bpe", tokens=tokens, token_type=types)
    merged = tiny_tokenizer(tmp_path, pre="qwen2", tokens=tokens, token_type=types)
    assert whole.encode("xyz") == [len(TOKENS)]
    assert len(merged.encode("xyz")) == 3


def test_llama_3_begins_with_bos_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    assert tiny_tokenizer(tmp_path, pre="llama-bpe").adds_bos
    assert not tiny_tokenizer(tmp_path, pre="llama-bpe", add_bos_token=False).adds_bos
    assert not tiny_tokenizer(tmp_path, pre="qwen2").adds_bos


def test_qwen_2_composes_characters_first(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(tmp_path, pre="qwen2")
    assert tokenizer.encode("e\N{COMBINING ACUTE ACCENT}") == tokenizer.encode(
        "\N{LATIN SMALL LETTER E WITH ACUTE}"
    )


def test_a_token_that_users_defined_is_plain_text(tmp_path: Path) -> None:
    tokens = [*TOKENS, "<über tool>"]
    types = [3] * 3 + [1] * (len(tokens) - 4) + [4]
    tokenizer = tiny_tokenizer(tmp_path, tokens=tokens, token_type=types)
    assert tokenizer.encode("<über tool>") == [len(TOKENS)]
    assert tokenizer.decode([len(TOKENS)]) == "<über tool>"


REFUSED = {
    "no tokens": ({"tokens": None}, "key tokenizer.ggml.tokens is missing or empty"),
    "another model": ({"model": "llama"}, "tokenizer model 'llama' is not known, expected 'gpt2'"),
    "no model": ({"model": None}, "tokenizer model None is not known, expected 'gpt2'"),
    "another pre-tokenizer": (
        {"pre": "tekken"},
        "pre-tokenizer 'tekken' is not known, expected one of gpt-2, smollm",
    ),
    "the same token twice": ({"tokens": ["a"] * len(TOKENS)}, "tokens, only 1 of them different"),
    "types for other tokens": ({"token_type": [1]}, "token_type has 1 entries for 265 tokens"),
    "a merge of one": ({"merges": ["he"]}, "merges holds 'he', expected two parts with a space between"),
    "a merge of strangers": ({"merges": ["xyz q"]}, "tokenizer.ggml.merges does not fit the vocabulary"),
    "an end past the vocabulary": ({"eos_token_id": 265}, "eos_token_id is 265, expected 0 to 264"),
    "a start below it": ({"bos_token_id": -1}, "bos_token_id is -1, expected 0 to 264"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_tokenizer_that_can_not_be_used_names_file_and_key(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ModelError) as caught:
        tiny_tokenizer(tmp_path, **changes)
    assert str(caught.value).startswith(f"{tmp_path / 't.gguf'}: ")
    assert message in str(caught.value)
