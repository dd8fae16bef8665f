"""The tokenizer of a GGUF file: byte-level BPE from the vocabulary and the merges that it carries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from odsi_proto.kernels import byte_level
from odsi_proto.kernels.gguf import GgufFile
from odsi_proto.kernels.tokenizer import TextTokenizer


class TokenType(IntEnum):
    """What a token of the vocabulary is for; GGUF's ``tokenizer.ggml.token_type``."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


MODEL = "gpt2"
"""Byte-level BPE, the one tokenizer model known here."""


@dataclass(frozen=True, slots=True)
class WordRule:
    """How text is cut in words before BPE. What is not set here is as in GPT-2."""

    digits_apart: bool = False
    """Whether every digit is a word of its own."""
    pattern: str | None = None
    """What a word is, if not what GPT-2 has."""
    whole_words: bool = False
    """Whether a word that is a token is taken as it is, without merges."""
    composes: bool = False
    """Whether text is first put in Unicode's composed form, NFC."""
    adds_bos: bool = False
    """Whether raw text begins with BOS if the file does not say."""

    def pre_tokenizer(self) -> pre_tokenizers.PreTokenizer:
        """What the library cuts with."""
        parts: list[pre_tokenizers.PreTokenizer] = []
        if self.digits_apart:
            parts.append(pre_tokenizers.Digits(individual_digits=True))
        if self.pattern is not None:
            parts.append(pre_tokenizers.Split(Regex(self.pattern), "isolated"))
        parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=self.pattern is None))
        return pre_tokenizers.Sequence(parts)


PRE_TOKENIZERS: Mapping[str, WordRule] = {
    "gpt-2": WordRule(),
    "smollm": WordRule(digits_apart=True),
    "llama-bpe": WordRule(
        pattern=r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        whole_words=True,
        adds_bos=True,
    ),
    "qwen2": WordRule(
        pattern=r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        composes=True,  # llama.cpp leaves this out; the model's own tokenizer.json has it
    ),
}
"""By GGUF's ``tokenizer.ggml.pre``."""


def gguf_tokenizer(file: GgufFile) -> TextTokenizer:
    """The tokenizer of ``file``; raises ``ModelError``."""
    tokens = file.texts("tokenizer.ggml.tokens")
    if not tokens:
        file.fail("key tokenizer.ggml.tokens is missing or empty")
    types = _token_types(file, len(tokens))
    rule = _word_rule(file)
    encoder = _encoder(file, rule, tokens, types)
    bos_id = _token_id(file, "tokenizer.ggml.bos_token_id", len(tokens))
    eos_id = _token_id(file, "tokenizer.ggml.eos_token_id", len(tokens))
    eot_id = _token_id(file, "tokenizer.ggml.eot_token_id", len(tokens))
    adds_bos = file.boolean("tokenizer.ggml.add_bos_token")
    return TextTokenizer(
        encoder,
        [_piece(token, kind) for token, kind in zip(tokens, types, strict=True)],
        bos_id=bos_id,
        bos_text="" if bos_id is None else tokens[bos_id],
        eos_text="" if eos_id is None else tokens[eos_id],
        end_ids=frozenset(token for token in (eos_id, eot_id) if token is not None),
        adds_bos=bos_id is not None and (rule.adds_bos if adds_bos is None else adds_bos),
    )


def _word_rule(file: GgufFile) -> WordRule:
    model = file.text("tokenizer.ggml.model")
    if model != MODEL:
        file.fail(f"tokenizer model {model!r} is not known, expected {MODEL!r}")
    pre = file.text("tokenizer.ggml.pre")
    if pre is None or pre not in PRE_TOKENIZERS:
        file.fail(f"pre-tokenizer {pre!r} is not known, expected one of {', '.join(PRE_TOKENIZERS)}")
    return PRE_TOKENIZERS[pre]


def _encoder(file: GgufFile, rule: WordRule, tokens: Sequence[str], types: Sequence[int]) -> Tokenizer:
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        file.fail(
            f"key tokenizer.ggml.tokens has {len(tokens)} tokens, only {len(vocabulary)} of them different"
        )
    try:
        encoder = Tokenizer(
            models.BPE(vocab=vocabulary, merges=_merges(file), ignore_merges=rule.whole_words)
        )
    except Exception as error:  # the library raises nothing narrower for a merge that makes no token
        file.fail(f"key tokenizer.ggml.merges does not fit the vocabulary: {error}")
    encoder.pre_tokenizer = rule.pre_tokenizer()
    if rule.composes:
        encoder.normalizer = normalizers.NFC()
    special = (TokenType.CONTROL, TokenType.USER_DEFINED)
    encoder.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in zip(tokens, types, strict=True)
            if kind in special and token
        ]
    )
    return encoder


def _merges(file: GgufFile) -> list[tuple[str, str]]:
    merges = []
    for merge in file.texts("tokenizer.ggml.merges") or ():
        left, _, right = merge.partition(" ")
        if not left or not right:
            file.fail(f"key tokenizer.ggml.merges holds {merge!r}, expected two parts with a space between")
        merges.append((left, right))
    return merges


def _token_types(file: GgufFile, count: int) -> list[int]:
    types = file.integers("tokenizer.ggml.token_type")
    if types is None:
        return [TokenType.NORMAL] * count
    if len(types) != count:
        file.fail(f"key tokenizer.ggml.token_type has {len(types)} entries for {count} tokens")
    return types


def _token_id(file: GgufFile, key: str, count: int) -> int | None:
    value = file.integer(key)
    if value is not None and not 0 <= value < count:
        file.fail(f"key {key} is {value}, expected 0 to {count - 1}")
    return value


def _piece(token: str, kind: int) -> bytes:
    if kind in (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.UNUSED):
        return b""
    return byte_level.piece(token)
