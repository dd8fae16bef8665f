"""The tokenizer of a Hugging Face directory: its tokenizer.json, run by the ``tokenizers`` library.

Such a file can hold more than a vocabulary: regular expressions without end, replacements that grow
a text a hundredfold at each of a hundred steps. So every part of it must be one that is known here,
and of the expressions only those of ``gguf_tokenizer.PRE_TOKENIZERS`` are run.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from tokenizers import Tokenizer

from odsi_proto.kernels import byte_level
from odsi_proto.kernels.config import VOCABULARY_MAX
from odsi_proto.kernels.fields import count
from odsi_proto.kernels.gguf_tokenizer import PRE_TOKENIZERS
from odsi_proto.kernels.hf_model import CONFIG, GENERATION_CONFIG, TOKENIZER, TOKENIZER_CONFIG, HfModel
from odsi_proto.kernels.json_text import JsonFields
from odsi_proto.kernels.tokenizer import TextTokenizer

Part: TypeAlias = Mapping[str, Any]
"""One part of a tokenizer.json, as the library writes it out again."""

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""What SentencePiece writes a space as."""

END_IDS_MAX = 64
"""Tokens that end an answer: models have one to five."""

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_PATTERNS = {rule.pattern for rule in PRE_TOKENIZERS.values()} - {None}


def hf_tokenizer(model: HfModel) -> TextTokenizer:
    """The tokenizer of ``model``; raises ``ModelError``."""
    encoder = _encoder(model)
    vocabulary = count(model.config, "vocab_size", VOCABULARY_MAX)
    ids: dict[str, int] = encoder.get_vocab(with_added_tokens=True)
    if ids and max(ids.values()) >= vocabulary:
        token = max(ids, key=ids.__getitem__)
        model.fail(
            f"{TOKENIZER} has token {token!a:.100} with id {ids[token]}, but vocab_size is {vocabulary}"
        )
    settings = model.fields(TOKENIZER_CONFIG)
    bos_text, eos_text = (_special_text(settings, key) for key in ("bos_token", "eos_token"))
    bos_id = ids.get(bos_text) if bos_text else None
    end_ids = _end_ids(model, vocabulary)
    if eos_text in ids:
        end_ids.add(ids[eos_text])
    first: list[int] = encoder.encode("", add_special_tokens=True).ids
    return TextTokenizer(
        encoder,
        _pieces(model, encoder, ids, vocabulary),
        bos_id=bos_id,
        bos_text=bos_text,
        eos_text=eos_text,
        end_ids=frozenset(end_ids),
        adds_bos=bos_id is not None and first[:1] == [bos_id],
    )


def _encoder(model: HfModel) -> Tokenizer:
    content = model.content(TOKENIZER)
    if content is None:
        model.fail(f"holds no {TOKENIZER}, which text needs")
    try:
        encoder = Tokenizer.from_buffer(content)
    except BaseException as error:
        # What the library calls a panic is no Exception, and what the user calls one is no panic.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        model.fail(f"{TOKENIZER} can not be used: {str(error)[:200]!a}")
    if (kind := type(encoder.model).__name__) != "BPE":
        model.fail(f"{TOKENIZER} has a model of type {kind}, expected BPE")
    _check(model, "normalizer", _part(encoder.normalizer), NORMALIZERS)
    _check(model, "pre_tokenizer", _part(encoder.pre_tokenizer), PRE_TOKENIZER_PARTS)
    _check(model, "decoder", _part(encoder.decoder), DECODERS)
    encoder.no_truncation()
    encoder.no_padding()
    return encoder


def _part(part: Any) -> Part | None:
    found: Part | None = None if part is None else json.loads(part.__getstate__())
    return found


def _check(model: HfModel, what: str, part: Part | None, known: Mapping[str, Callable[[Part], bool]]) -> None:
    """That ``part`` is nothing but parts that are known."""
    for one in _flat(part):
        accepts = known.get(one["type"])
        if accepts is None or not accepts(one):
            model.fail(f"{TOKENIZER} has a {what} that is not known: {json.dumps(one)[:200]}")


def _flat(part: Part | None) -> list[Part]:
    """The parts of a sequence in a sequence, in order."""
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    inner = next(value for key, value in part.items() if key != "type")
    return [one for item in inner for one in _flat(item)]


def _any(part: Part) -> bool:
    return True


NORMALIZERS: Mapping[str, Callable[[Part], bool]] = {
    "NFC": _any,
    "Prepend": lambda part: part["prepend"] == SPACE,
    "Replace": lambda part: part["pattern"] == {"String": " "} and part["content"] == SPACE,
}

PRE_TOKENIZER_PARTS: Mapping[str, Callable[[Part], bool]] = {
    "ByteLevel": _any,
    "Digits": _any,
    "Metaspace": lambda part: part["replacement"] == SPACE,
    "Split": lambda part: part["pattern"].get("Regex") in _PATTERNS,
}

DECODERS: Mapping[str, Callable[[Part], bool]] = {
    "ByteLevel": _any,
    "ByteFallback": _any,
    "Fuse": _any,
    "Metaspace": lambda part: part["replacement"] == SPACE,
    "Replace": lambda part: part["pattern"] == {"String": SPACE} and part["content"] == " ",
    # Takes the first space off a whole text. An answer goes on from a prompt, and keeps its own.
    "Strip": lambda part: part["content"] == " ",
}


def _pieces(model: HfModel, encoder: Tokenizer, ids: Mapping[str, int], vocabulary: int) -> list[bytes]:
    """The bytes that each token stands for; none for a special one or an id that no token has."""
    kinds = {one["type"] for one in _flat(_part(encoder.decoder))}
    if not kinds:
        model.fail(f"{TOKENIZER} has no decoder")
    piece = byte_level.piece if "ByteLevel" in kinds else _sentence_piece
    pieces = [b""] * vocabulary
    for token, index in ids.items():
        pieces[index] = piece(token)
    for index, added in encoder.get_added_tokens_decoder().items():
        pieces[index] = b"" if added.special else added.content.encode("utf-8", "replace")
    return pieces


def _sentence_piece(token: str) -> bytes:
    match = _BYTE.fullmatch(token)
    return bytes.fromhex(match[1]) if match else token.replace(SPACE, " ").encode("utf-8", "replace")


def _special_text(settings: JsonFields, key: str) -> str:
    """A special token of tokenizer_config.json: a string, or an object that has one."""
    if isinstance(settings.value(key), dict):
        added = settings.object(key)
        assert added is not None
        return added.text("content") or ""
    return settings.text(key) or ""


def _end_ids(model: HfModel, vocabulary: int) -> set[int]:
    """What generation_config.json says ends an answer, or else config.json."""
    for name in (GENERATION_CONFIG, CONFIG):
        fields = model.fields(name)
        value = fields.value("eos_token_id")
        if value is None:
            continue
        found = value if isinstance(value, list) else [value]
        if len(found) > END_IDS_MAX or not all(
            isinstance(token, int) and not isinstance(token, bool) and 0 <= token < vocabulary
            for token in found
        ):
            fields.fail(f"key eos_token_id is {str(value)[:100]!a}, expected ids from 0 to {vocabulary - 1}")
        return set(found)
    return set()
