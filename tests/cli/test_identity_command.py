"""``odsi identity``: what it makes and shows, and that it never overwrites."""

import stat
from pathlib import Path

import pytest
from cli.programs import Here


def test_a_new_identity_is_two_files_that_the_output_explains(odsi: Here, tmp_path: Path) -> None:
    outcome = odsi("identity", "new", "--out", tmp_path / "a.json")

    assert outcome.code == 0
    assert outcome.out.startswith("participant ")
    assert f"{tmp_path}/a.json: its hot key" in outcome.out
    assert f"{tmp_path}/a.json.cold: its own key; no program needs it" in outcome.out
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.json", "a.json.cold"]


def test_the_default_place_is_made(odsi: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    assert odsi("identity", "new").code == 0
    assert stat.S_IMODE((tmp_path / "odsi" / "identity.json").stat().st_mode) == 0o600
    assert odsi("identity", "show").code == 0


def test_show_says_the_same_as_new(odsi: Here, tmp_path: Path) -> None:
    (made,) = odsi("identity", "new", "--out", tmp_path / "a.json", "--json").events
    (shown,) = odsi("identity", "show", tmp_path / "a.json", "--json").events

    assert made.pop("cold_file") == f"{tmp_path}/a.json.cold"
    assert made == shown
    assert set(shown) == {"event", "file", "participant", "hot_key", "epoch", "not_before_s", "not_after_s"}


def test_validity_is_in_days(odsi: Here, tmp_path: Path) -> None:
    (made,) = odsi("identity", "new", "--out", tmp_path / "a.json", "--valid-days", "2", "--json").events

    assert made["not_after_s"] - made["not_before_s"] == 2 * 86_400


@pytest.mark.parametrize("days", ["0", "3651", "soon"])
def test_validity_out_of_bounds_is_a_usage_error(odsi: Here, tmp_path: Path, days: str) -> None:
    outcome = odsi("identity", "new", "--out", tmp_path / "a.json", "--valid-days", days)

    assert outcome.code == 2
    assert "--valid-days" in outcome.message


def test_an_identity_file_is_not_overwritten(odsi: Here, tmp_path: Path) -> None:
    odsi("identity", "new", "--out", tmp_path / "a.json")
    before = (tmp_path / "a.json").read_bytes()

    outcome = odsi("identity", "new", "--out", tmp_path / "a.json")

    assert outcome.code == 3
    assert outcome.message == (
        f"{tmp_path}/a.json exists and is never overwritten: move it away or choose another --out"
    )
    assert (tmp_path / "a.json").read_bytes() == before


def test_an_identity_that_others_may_read_is_refused(odsi: Here, tmp_path: Path) -> None:
    odsi("identity", "new", "--out", tmp_path / "a.json")
    (tmp_path / "a.json").chmod(0o644)

    outcome = odsi("node", "--layers", "0-1", "--identity", tmp_path / "a.json")

    assert outcome.code == 3
    assert outcome.message == (
        f"{tmp_path}/a.json has permissions 0644, expected 0600: run `chmod 600 {tmp_path}/a.json`"
    )
