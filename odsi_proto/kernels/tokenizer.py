"""Text to token ids and back, from the vocabulary that the model file itself carries.

Encoding is byte-level BPE by the ``tokenizers`` library. Decoding is a table look-up done here, in
bytes, so that a stream of tokens can be shown as it comes: a character may span tokens, and its
first half is held back until the rest is there.
"""

import codecs
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import TypeAlias

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from odsi_proto.errors import ConfigError
from odsi_proto.kernels.gguf import GgufFile


class TokenType(IntEnum):
    """What a token of the vocabulary is for; GGUF's ``tokenizer.ggml.token_type``."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


PreTokenizer: TypeAlias = Callable[[], pre_tokenizers.PreTokenizer]


def _gpt2() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _smollm() -> pre_tokenizers.PreTokenizer:
    """GPT-2's, with every digit a word of its own."""
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


MODEL = "gpt2"
"""Byte-level BPE, the one tokenizer model known here."""

PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {"gpt-2": _gpt2, "smollm": _smollm}
"""How text is cut in words before BPE, by GGUF's ``tokenizer.ggml.pre``."""


class TextTokenizer:
    """The tokenizer of one model."""

    def __init__(self, file: GgufFile) -> None:
        tokens = file.texts("tokenizer.ggml.tokens")
        if not tokens:
            file.fail("key tokenizer.ggml.tokens is missing or empty")
        self._types = _token_types(file, len(tokens))
        self._encoder = _encoder(file, tokens, self._types)
        self._pieces = [_piece(token, kind) for token, kind in zip(tokens, self._types, strict=True)]
        self.bos_id = _token_id(file, "tokenizer.ggml.bos_token_id", len(tokens))
        self.eos_id = _token_id(file, "tokenizer.ggml.eos_token_id", len(tokens))
        eot_id = _token_id(file, "tokenizer.ggml.eot_token_id", len(tokens))
        self.end_ids = frozenset(token for token in (self.eos_id, eot_id) if token is not None)
        """Tokens that end an answer."""
        self.adds_bos = bool(file.boolean("tokenizer.ggml.add_bos_token")) and self.bos_id is not None
        """Whether raw text is to begin with the BOS token."""
        self.bos_text = "" if self.bos_id is None else tokens[self.bos_id]
        self.eos_text = "" if self.eos_id is None else tokens[self.eos_id]

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``, control tokens written in it included, nothing added.

        A byte that the vocabulary has no token for is dropped, as llama.cpp drops it.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(f"the text is not valid Unicode at character {error.start}") from error
        ids: list[int] = self._encoder.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of ``token_ids``, without control tokens; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(self.piece(token) for token in token_ids).decode("utf-8", "replace")

    def piece(self, token_id: int) -> bytes:
        """The bytes that one token stands for: none for a control token or an unknown id."""
        return self._pieces[token_id] if 0 <= token_id < len(self._pieces) else b""

    def stream(self) -> "TextStream":
        """A decoder for tokens that come one at a time."""
        return TextStream(self)


class TextStream:
    """Text as tokens come: whole characters only, and the pieces joined are ``decode`` of all tokens."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """The text that ``token_id`` completes; may be empty."""
        return self._decoder.decode(self._tokenizer.piece(token_id))

    def finish(self) -> str:
        """What was held back, if the tokens ended inside a character."""
        return self._decoder.decode(b"", final=True)


def _encoder(file: GgufFile, tokens: Sequence[str], types: Sequence[int]) -> Tokenizer:
    model = file.text("tokenizer.ggml.model")
    if model != MODEL:
        file.fail(f"tokenizer model {model!r} is not known, expected {MODEL!r}")
    pre = file.text("tokenizer.ggml.pre")
    if pre is None or pre not in PRE_TOKENIZERS:
        file.fail(f"pre-tokenizer {pre!r} is not known, expected one of {', '.join(PRE_TOKENIZERS)}")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        file.fail(
            f"key tokenizer.ggml.tokens has {len(tokens)} tokens, only {len(vocabulary)} of them different"
        )
    try:
        encoder = Tokenizer(models.BPE(vocab=vocabulary, merges=_merges(file)))
    except Exception as error:  # the library raises nothing narrower for a merge that makes no token
        file.fail(f"key tokenizer.ggml.merges does not fit the vocabulary: {error}")
    encoder.pre_tokenizer = PRE_TOKENIZERS[pre]()
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


def _byte_of_char() -> dict[str, int]:
    """GPT-2's alphabet: a printable character for each byte; those without one take U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF_CHAR = _byte_of_char()


def _piece(token: str, kind: int) -> bytes:
    if kind in (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.UNUSED):
        return b""
    try:
        return bytes([_BYTE_OF_CHAR[char] for char in token])
    except KeyError:  # a user-defined token is plain text
        return token.encode()
