"""``odsi vectors`` and ``odsi decode`` as a user meets them."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from odsi_proto.cli.decode import INPUT_BYTES_MAX
from odsi_proto.cli.main import run

GOAWAY = "12051403627965"


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_verify_passes_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["vectors", "verify", "tags/*", "--json"]) == 0
    (counted,) = objects(capsys.readouterr().out)
    assert (counted["event"], counted["failed"], counted["kinds"]) == (
        "vectors",
        0,
        {"tag": counted["passed"]},
    )


def test_verify_says_which_vectors_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {
        "name": "wrong",
        "codec": "varint",
        "bytes": "25",
        "valid": False,
        "error": "malformed",
        "why": "",
    }
    content = {"format": "odsi-vectors/1", "kind": "codec", "origin": "a test", "vectors": [wrong]}
    (tmp_path / "mine.json").write_text(json.dumps(content))
    assert run(["vectors", "verify", "--dir", str(tmp_path)]) == 6
    said = capsys.readouterr()
    assert "mine/wrong: accepted, expected malformed" in said.out
    assert "0 of 1 vectors pass" in said.out
    assert said.err == "odsi: error: 1 of 1 vectors fail\n"


def test_list_names_the_vectors(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["vectors", "list", "tags/*"]) == 0
    assert "tag         tags/five-tokens" in capsys.readouterr().out


def test_show_prints_a_vector(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["vectors", "show", "anchors/goaway", "--json"]) == 0
    (shown,) = objects(capsys.readouterr().out)
    assert shown["vector"]["bytes"] == GOAWAY


@pytest.mark.parametrize("arguments", [["show", "nothing"], ["verify", "nothing"], ["list", "nothing"]])
def test_a_name_that_no_vector_has_is_a_usage_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["vectors", *arguments]) == 2
    assert "odsi vectors list" in capsys.readouterr().err


def test_decode_explains_digits(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["decode", GOAWAY]) == 0
    assert "GOAWAY GOING_AWAY 'bye'" in capsys.readouterr().out


def test_decode_gives_every_field_to_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["decode", GOAWAY, "--json"]) == 0
    (decoded,) = objects(capsys.readouterr().out)
    fields = [(field["offset"], field["bytes"], field["name"]) for field in decoded["fields"]]
    assert fields[:3] == [(0, "12", "frame"), (1, "05", "length"), (2, "14", "code")]
    assert decoded["problems"] == []


@pytest.mark.parametrize("content", [bytes.fromhex(GOAWAY), f"{GOAWAY}\n".encode()])
def test_decode_reads_files_of_bytes_or_digits(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "frame"
    file.write_bytes(content)
    assert run(["decode", str(file)]) == 0
    assert "GOING_AWAY" in capsys.readouterr().out


def test_decode_reads_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(bytes.fromhex(GOAWAY))))
    assert run(["decode", "-"]) == 0
    assert "GOING_AWAY" in capsys.readouterr().out


def test_decode_shows_what_it_understood_of_malformed_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["decode", GOAWAY[:-4]]) == 2
    said = capsys.readouterr()
    assert "code  GOING_AWAY" in said.out
    assert said.err.startswith("odsi: error: malformed at byte ")


def test_decode_takes_the_kind_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["decode", "83010203", "--kind", "cbor"]) == 0
    assert "array of 3" in capsys.readouterr().out


def test_decode_of_neither_digits_nor_a_file_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["decode", "no such file"]) == 2
    assert "neither hexadecimal digits nor a file" in capsys.readouterr().err


def test_decode_of_too_much_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "large"
    file.write_bytes(bytes(INPUT_BYTES_MAX + 1))
    assert run(["decode", str(file)]) == 2
    assert "more than" in capsys.readouterr().err


def test_a_reason_can_not_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["decode", "120614041b5b324a"]) == 0
    assert "\x1b" not in capsys.readouterr().out
