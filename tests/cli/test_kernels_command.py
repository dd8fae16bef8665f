"""``odsi kernels``: measured once, remembered, and never believed beyond its machine and model."""

from pathlib import Path

import pytest
from cli.programs import Here


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "odsi"


def test_every_profile_is_measured_and_the_measurement_is_remembered(odsi: Here, tiny: Path) -> None:
    (first,) = odsi("kernels", "--model", tiny, "--json").events
    (again,) = odsi("kernels", "--model", tiny, "--json").events

    assert again == first
    assert [profile["profile"] for profile in first["profiles"]] == ["FLOAT32", "FAST"]
    for profile in first["profiles"]:
        assert profile["backend"]
        assert all(timing["layer_us"] > 0 for timing in profile["timings"])


def test_a_remembered_report_that_can_not_be_read_is_made_again(odsi: Here, tiny: Path, folder: Path) -> None:
    odsi("kernels", "--model", tiny)
    (cached,) = folder.iterdir()
    cached.write_text('{"fingerprint": 1}')

    outcome = odsi("kernels", "--model", tiny)

    assert outcome.code == 0
    assert "FLOAT32" in cached.read_text()


def test_people_see_why_it_is_not_faster(odsi: Here, tiny: Path) -> None:
    outcome = odsi("kernels", "--model", tiny)

    assert "FLOAT32: torch, float32 (the model's widths are not multiples of 16" in outcome.out


def test_a_cache_that_can_not_be_written_costs_only_time(
    odsi: Here, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(in_the_way))

    assert odsi("kernels", "--model", tiny).code == 0
