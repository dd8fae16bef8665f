"""The specification's vectors, run against this implementation; and that they stay what they are."""

import copy
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from vectors.schema_subset import violations

from odsi_proto.errors import ConfigError
from odsi_proto.testing import vectors
from odsi_proto.wire.frames import FRAMES

ROOT = Path(__file__).resolve().parents[2]
DIRECTORY = ROOT / "specs" / "vectors"
ALL = vectors.load(DIRECTORY)
SCHEMA = json.loads((DIRECTORY / "schema.json").read_text())
FILES = sorted(path for path in DIRECTORY.glob("*.json") if path.name != "schema.json")


@pytest.mark.parametrize("file", [path.stem for path in FILES])
def test_every_vector_of_a_file_passes(file: str) -> None:
    of_the_file = [vector for vector in ALL if vector.name.startswith(f"{file}/")]
    assert of_the_file
    assert {v.name: problems for v in of_the_file if (problems := vectors.check(v))} == {}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_fits_the_schema(path: Path) -> None:
    assert violations(json.loads(path.read_text()), SCHEMA, SCHEMA) == []


def test_the_generator_writes_what_is_there() -> None:
    command = [sys.executable, "tools/generate_vectors.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_there_are_at_least_as_many_invalid_as_valid_codec_vectors() -> None:
    counted = Counter((v.data["codec"], v.data["valid"]) for v in ALL if v.kind == "codec")
    assert {codec for codec, _ in counted} == set(vectors.CODECS)
    assert [codec for codec in vectors.CODECS if counted[codec, False] < counted[codec, True]] == []


def test_every_frame_has_an_anchor() -> None:
    anchored = {v.data["value"]["frame"] for v in ALL if v.name.startswith("anchors/") and is_frame(v)}
    assert len(anchored) == len(FRAMES) + 1  # and one that is unknown


def is_frame(vector: vectors.Vector) -> bool:
    return bool(vector.data["valid"]) and vector.data["codec"] == "frame"


WRONG: dict[str, tuple[str, Any]] = {
    "anchors/step": ("value", {}),
    "messages/signed-open": ("domain", "commit"),
    "transcripts/auth-of-the-dialler": ("signature", "00" * 64),
    "tags/five-tokens": ("chain", []),
    "numerics/f16-exponent-of-5": ("payload", "00" * 8),
    "machine-steps/a-step-runs-and-goes-on": (
        "steps",
        [{"now": 1, "input": {"input": "timer"}, "effects": [1]}],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_vector_that_says_otherwise_fails(name: str) -> None:
    (vector,) = [v for v in ALL if v.name == name]
    field, value = WRONG[name]
    data = {**copy.deepcopy(dict(vector.data)), field: value}
    assert vectors.check(vectors.Vector(name=name, kind=vector.kind, data=data)) != ()


def test_an_invalid_vector_that_is_accepted_fails() -> None:
    data = {"codec": "varint", "bytes": "25", "valid": False, "error": "malformed"}
    assert vectors.check(vectors.Vector(name="x", kind="codec", data=data)) == (
        "accepted, expected malformed",
    )


def test_a_kind_that_is_not_known_fails() -> None:
    assert vectors.check(vectors.Vector(name="x", kind="ritual", data={})) != ()


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        '{"format": "odsi-vectors/2", "kind": "tag", "vectors": []}',
        '{"format": "odsi-vectors/1", "vectors": []}',
        '{"format": "odsi-vectors/1", "kind": "tag", "vectors": [{"name": "a"}, {"name": "a"}]}',
    ],
)
def test_a_file_of_something_else_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ConfigError, match=r"x\.json"):
        vectors.load(tmp_path)


def test_a_directory_without_vectors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no test vectors"):
        vectors.load(tmp_path)


def test_the_vectors_are_found_beside_the_sources() -> None:
    assert vectors.default_directory() == DIRECTORY
