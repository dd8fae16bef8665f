"""From ``specs/registries/*.toml``: ``wire/codepoints.py``, the tables of specs/06, ``fuzz/odsi.dict``.

Run it after editing a registry. ``--check`` writes nothing and fails when a file differs.
"""

import textwrap
from pathlib import Path

from spec_markers import ROOT, SPECS, between_markers, main, table
from spec_registries import Registry, load_all

CODEPOINTS = ROOT / "odsi_proto" / "wire" / "codepoints.py"
DOCUMENT = SPECS / "06-extensions-and-registries.md"
DICTIONARY = ROOT / "fuzz" / "odsi.dict"
SOURCE = "Written by tools/generate_codepoints.py from specs/registries/*.toml; edit those."
COMMENT_WIDTH = 104

ENUMS = (
    "stream-types",
    "frame-types",
    "error-codes",
    "roles",
    "hash-suites",
    "settings",
    "deadline-kinds",
    "late-actions",
)
"""The registries that become classes, in the order of the module."""

HEADER = f'''# {SOURCE}
"""The numbers of version 1.

Stream, frame and extension types are odd where a receiver that does not know them ignores them,
and even where it must not go on without understanding them. Numbers of the form 62 N + 27 (all of
them odd) mean nothing and are sent at random, so that receivers which break on unknown numbers
are found early ("grease").
"""

from enum import IntEnum

ALPN = "odsi/{{version}}"
VERSION = {{version}}


def is_ignorable(number: int) -> bool:
    """Whether a receiver that does not know the type may ignore it."""
    return number % 2 == 1
'''

NAME_OF = '''
    @classmethod
    def name_of(cls, number: int) -> str:
        """The code's name, or its number where this version does not know it."""
        try:
            return cls(number).name
        except ValueError:
            return f"error {number:#x}"
'''

DOMAINS = ("delegation", "auth", "open", "commit", "cancel")
CONSTANTS = ("odsi/1", "odsi/1 tag root", "all")


def outputs() -> dict[Path, str]:
    """Every generated file with its text."""
    registries = {registry.name: registry for registry in load_all()}
    blocks = {f"registry {name}": markdown(registry) for name, registry in registries.items()}
    return {
        CODEPOINTS: module(registries),
        DOCUMENT: between_markers(DOCUMENT, blocks),
        DICTIONARY: dictionary(registries),
    }


def module(registries: dict[str, Registry]) -> str:
    """The text of ``codepoints.py``."""
    version = max(entry.number for entry in registries["versions"].entries)
    parts = [HEADER.format(version=version)]
    for name in ENUMS:
        registry = registries[name]
        lines = [f"class {registry.enum}(IntEnum):", f'    """{registry.doc}"""', ""]
        for entry in registry.entries:
            number = f"0x{entry.number:02X}" if registry.grease else str(entry.number)
            lines.append(f"    {entry.name} = {number}")
            if entry.text:
                lines.append(_docstring(entry.text))
        parts.append("\n".join(lines) + "\n" + (NAME_OF if registry.enum == "ErrorCode" else ""))
    return "\n\n".join(parts)


def markdown(registry: Registry) -> str:
    """A registry's entries and ranges as two tables."""
    shown = registry.shown
    entries = table(
        ("number", "name", "meaning", "specified in"),
        [(shown(e.number), f"`{e.name}`", e.text, e.reference) for e in registry.entries],
    )
    ranges = table(
        ("from", "to", "policy", "use"),
        [(shown(r.first), shown(r.last), r.policy, r.use) for r in registry.ranges],
    )
    what = entries if registry.entries else "Version 1 assigns none."
    return f"A receiver that does not know the number: {registry.unknown}\n\n{what}\n\n{ranges}"


def dictionary(registries: dict[str, Registry]) -> str:
    """A libFuzzer dictionary: what random bytes would take long to hit upon."""
    numbers = {
        f"{name}_{entry.name}": entry.number
        for name in ("stream-types", "frame-types", "error-codes", "settings")
        for entry in registries[name].entries
    }
    numbers |= {f"grease_{number}": number for number in (27, 89, 62 * 255 + 27)}
    numbers |= {f"varint_max_{bits}": (1 << bits) - 1 for bits in (6, 14, 30, 62)}
    lines = [f"# {SOURCE}", *(_token(name, _varint(number)) for name, number in numbers.items())]
    lines += [_token(f"domain_{name}", bytes([len(name)]) + name.encode()) for name in DOMAINS]
    lines += [_token(f"constant_{index}", text.encode()) for index, text in enumerate(CONSTANTS)]
    heads = {"bytes16": b"\x50", "bytes32": b"\x58\x20", "bytes64": b"\x58\x40", "empty_bytes": b"\x40"}
    heads |= {f"array{count}": bytes([0x80 + count]) for count in (0, 2, 3, 4, 7, 8, 11, 17, 23)}
    lines += [_token(f"cbor_{name}", head) for name, head in heads.items()]
    return "\n".join(lines) + "\n"


def _docstring(text: str) -> str:
    quoted = f'"""{text}"""'
    return textwrap.fill(quoted, COMMENT_WIDTH, initial_indent="    ", subsequent_indent="    ")


def _varint(value: int) -> bytes:
    size = next(size for size in (1, 2, 4, 8) if value < 1 << (8 * size - 2))
    return (value | (size.bit_length() - 1) << (8 * size - 2)).to_bytes(size, "big")


def _token(name: str, value: bytes) -> str:
    escaped = "".join(f"\\x{byte:02x}" for byte in value)
    return f'{name.lower().replace("-", "_")}="{escaped}"'


if __name__ == "__main__":
    main(__doc__, outputs)
