"""GPT-2's way to write bytes as characters, which byte-level vocabularies are written in."""


def piece(token: str) -> bytes:
    """The bytes that ``token`` of such a vocabulary stands for; one outside its alphabet is plain text."""
    try:
        return bytes([_BYTE_OF_CHAR[char] for char in token])
    except KeyError:  # a token that users defined
        return token.encode("utf-8", "replace")


def _byte_of_char() -> dict[str, int]:
    """A printable character for each byte; those without one take U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF_CHAR = _byte_of_char()
