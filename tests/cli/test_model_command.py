"""``odsi model``: manifests are written whole or not at all; inspection reads what it shows."""

import json
import shutil
from pathlib import Path

import pytest
from cli.programs import Here


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(tiny, tmp_path / "model.gguf"))


def test_a_manifest_is_written_where_nodes_look_for_it(odsi: Here, model: Path) -> None:
    outcome = odsi("model", "manifest", model, "--json")

    assert outcome.code == 0
    (event,) = outcome.events
    written = json.loads(Path(f"{model}.manifest.json").read_text())
    assert event["manifest"] == f"{model}.manifest.json"
    assert event["model_root"] == written["root"]
    assert event["tensors"] == len(written["tensors"])


def test_an_existing_manifest_is_kept_without_force(odsi: Here, model: Path, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text("mine")

    outcome = odsi("model", "manifest", model, "--out", tmp_path / "m.json")

    assert outcome.code == 2
    assert outcome.message == f"{tmp_path}/m.json exists: --force replaces it"
    assert (tmp_path / "m.json").read_text() == "mine"


def test_force_replaces_it_and_leaves_nothing_else(odsi: Here, model: Path, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text("mine")

    assert odsi("model", "manifest", model, "--out", tmp_path / "m.json", "--force").code == 0
    assert json.loads((tmp_path / "m.json").read_text())["architecture"] == "llama"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.json", "model.gguf"]


def test_a_manifest_that_can_not_be_written_is_named(odsi: Here, model: Path, tmp_path: Path) -> None:
    outcome = odsi("model", "manifest", model, "--out", tmp_path / "none" / "m.json")

    assert outcome.code == 2
    assert outcome.message == f"can not write {tmp_path}/none/m.json: No such file or directory"


def test_inspect_shows_measures_and_tensors(odsi: Here, model: Path) -> None:
    (event,) = odsi("model", "inspect", model, "--json").events

    assert event["config"]["layers_count"] == 3
    assert event["model_root"] is None
    assert {"name", "shape", "type", "bytes", "sha256"} == set(event["tensors"][0])


def test_inspect_believes_the_manifest_beside_the_file(odsi: Here, model: Path) -> None:
    (made,) = odsi("model", "manifest", model, "--json").events
    (event,) = odsi("model", "inspect", model, "--json").events

    assert event["model_root"] == made["model_root"]
    assert all(len(tensor["sha256"]) == 64 for tensor in event["tensors"])


def test_inspect_digests_on_demand(odsi: Here, model: Path) -> None:
    (made,) = odsi("model", "manifest", model, "--json").events
    Path(f"{model}.manifest.json").unlink()

    (event,) = odsi("model", "inspect", model, "--digest", "--json").events

    assert event["model_root"] == made["model_root"]


def test_inspect_shows_what_a_node_of_some_layers_reads(odsi: Here, model: Path) -> None:
    (event,) = odsi("model", "inspect", model, "--layers", "1-2", "--json").events

    assert {tensor["name"].split(".")[1] for tensor in event["tensors"]} == {"1"}


def test_people_see_a_table_with_a_total(odsi: Here, model: Path) -> None:
    outcome = odsi("model", "inspect", model, "--layers", "1-2")

    assert outcome.out.startswith(f"{model}: ")
    assert "licence: not stated in the file" in outcome.out
    assert "9 tensors" in outcome.out


def test_the_name_of_a_tensor_is_no_markup(odsi: Here, model: Path) -> None:
    model.write_bytes(model.read_bytes().replace(b"output_norm.weight", b"[red]t_norm.weight"))

    outcome = odsi("model", "inspect", model)

    assert outcome.code == 0
    assert "[red]t_norm.weight" in outcome.out


def test_a_file_that_is_no_model_is_named(odsi: Here, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_text("hello, this is text")

    outcome = odsi("model", "inspect", tmp_path / "x.gguf")

    assert outcome.code == 4
    assert outcome.message.startswith(f"{tmp_path}/x.gguf: not a GGUF file")


def test_a_truncated_model_is_named(odsi: Here, model: Path) -> None:
    model.write_bytes(model.read_bytes()[:-1])

    outcome = odsi("model", "manifest", model)

    assert outcome.code == 4
    assert str(model) in outcome.message


def test_layers_that_the_model_has_not_are_a_model_error(odsi: Here, model: Path) -> None:
    outcome = odsi("model", "inspect", model, "--layers", "2-4")

    assert outcome.code == 4
    assert outcome.message == f"{model}: layers 2-4 asked for, the model has 3"
