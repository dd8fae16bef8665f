"""``odsi model``: manifests are written whole or not at all; inspection reads what it shows."""

import json
import shutil
from pathlib import Path

import pytest
from cli.programs import Here
from kernels.tiny_hf import write_tiny_hf
from kernels.tiny_llama import TinyShape, write_tiny
from kernels.tiny_rope import TinyScaling


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
    assert "licence: not stated" in outcome.out
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


# Directories, and what they say of their licence.


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write_tiny_hf(
        tmp_path / "qwen", TinyShape(architecture="qwen3", scaling=TinyScaling(kind="yarn")), shards=2
    )
    return tmp_path / "qwen"


def test_the_manifest_of_a_directory_is_written_into_it(odsi: Here, directory: Path) -> None:
    (made,) = odsi("model", "manifest", directory, "--json").events
    (seen,) = odsi("model", "inspect", directory, "--json").events

    assert made["manifest"] == f"{directory}/model.manifest.json"
    assert made["model_root"] == seen["model_root"]


def test_inspect_shows_the_architecture_of_a_directory(odsi: Here, directory: Path) -> None:
    (event,) = odsi("model", "inspect", directory, "--json").events

    config = event["config"]
    assert (config["architecture"], config["qk_norm"], config["qkv_bias"]) == ("qwen3", True, False)
    assert (config["rope_scaling"], len(config["rope_divisors"]), config["tied_head"]) == ("yarn", 4, True)
    assert event["bytes"] == sum(file.stat().st_size for file in directory.glob("*.safetensors"))
    assert event["licence"] is None


def test_people_see_a_scaling_in_a_line(odsi: Here, directory: Path) -> None:
    assert "rope divisors: 4, from 1 to 4\n" in odsi("model", "inspect", directory).out


def test_a_directory_with_one_gguf_file_is_that_model(odsi: Here, model: Path) -> None:
    (event,) = odsi("model", "inspect", model.parent, "--json").events

    assert event["file"] == str(model)


def test_a_directory_generates_what_the_file_of_the_same_weights_does(
    odsi: Here, tiny: Path, tmp_path: Path
) -> None:
    write_tiny_hf(tmp_path / "llama", TinyShape())
    arguments = ("--local", "--json", "--max-tokens=8", "--prompt=hello")

    theirs, ours = (
        odsi("generate", "--model", path, *arguments).events[-1] for path in (tiny, tmp_path / "llama")
    )

    assert ours["token_ids"] == theirs["token_ids"]
    assert ours["text"] == theirs["text"]


def test_the_licence_of_a_readme_is_shown_with_the_file_that_has_it(odsi: Here, directory: Path) -> None:
    (directory / "README.md").write_text("---\nlicense: other\nlicense_name: 'qwen'\n---\nlicense: mit\n")
    (directory / "LICENSE").write_text("\n   Qwen  LICENSE\x1b[31m AGREEMENT\n\nby using\nthis\nand that\n")

    (event,) = odsi("model", "inspect", directory, "--json").events
    human = odsi("model", "inspect", directory).out

    assert event["licence"] == "other"
    assert event["licence_stated"] == {
        "id": "other",
        "name": "qwen",
        "link": None,
        "file": "LICENSE",
        "first_lines": ["Qwen LICENSE\x1b[31m AGREEMENT", "by using", "this"],
    }
    assert "licence: other qwen LICENSE: Qwen LICENSE\N{REPLACEMENT CHARACTER}[31m AGREEMENT by" in human


@pytest.mark.parametrize("readme", ["", "license: mit\n", "---\nlicense:\n---\n", "---\nlicense: mit\n"])
def test_a_readme_that_states_no_licence_states_none(odsi: Here, directory: Path, readme: str) -> None:
    (directory / "README.md").write_text(readme)

    assert odsi("model", "inspect", directory, "--json").events[0]["licence_stated"] is None


def test_the_licence_of_a_gguf_file_is_shown(odsi: Here, tmp_path: Path) -> None:
    write_tiny(tmp_path / "m.gguf", TinyShape(), licence=("other", "tiny", "https://tiny.example"))

    outcome = odsi("model", "inspect", tmp_path / "m.gguf")

    assert "licence: other tiny https://tiny.example\n" in outcome.out


def test_a_directory_without_a_model_says_what_was_looked_for(odsi: Here, tmp_path: Path) -> None:
    outcome = odsi("model", "inspect", tmp_path)

    assert outcome.code == 4
    assert outcome.message.startswith(f"{tmp_path}: holds neither a .gguf file nor model.safetensors")
