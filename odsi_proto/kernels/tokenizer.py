"""Text to token ids and back.

Encoding is done by the ``tokenizers`` library. Decoding is a table look-up done here, in bytes, so
that a stream of tokens can be shown as it comes: a character may span tokens, and its first half is
held back until the rest is there. ``vocabulary`` makes a tokenizer out of a model.
"""

import codecs
from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer

from odsi_proto.errors import ConfigError


class TextTokenizer:
    """The tokenizer of one model."""

    def __init__(
        self,
        encoder: Tokenizer,
        pieces: Sequence[bytes],
        *,
        bos_id: int | None,
        bos_text: str,
        eos_text: str,
        end_ids: frozenset[int],
        adds_bos: bool,
    ) -> None:
        """``pieces`` has the bytes that each token stands for, by id."""
        self._encoder = encoder
        self._pieces = pieces
        self.bos_id = bos_id
        self.bos_text = bos_text
        self.eos_text = eos_text
        self.end_ids = end_ids
        """Tokens that end an answer."""
        self.adds_bos = adds_bos
        """Whether raw text is to begin with the BOS token."""

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
