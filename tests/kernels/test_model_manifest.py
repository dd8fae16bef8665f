"""Manifests of files: built, kept beside the model, and held against the bytes that are loaded."""

from pathlib import Path

import pytest

from odsi_proto.errors import ModelError
from odsi_proto.kernels.engine import StageEngine
from odsi_proto.kernels.gguf import GgufFile
from odsi_proto.kernels.head import ClientModel
from odsi_proto.kernels.manifest import build_manifest, load_or_build, sidecar_path, verify_tensors
from odsi_proto.units import LayerRange
from odsi_proto.wire.manifest import ModelManifest, to_sidecar

SHIPPED_ROOT = "3dd9b55c65d04f59a8e207509c089ed96a1d438db10128c38ffbfd73470dfae6"
"""A golden value: it changes only if the manifest's format does, and then every node must agree."""


def flip(path: Path, offset: int) -> None:
    """Change one byte of a file."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_the_shipped_model_has_the_root_it_always_had(manifest: ModelManifest) -> None:
    assert manifest.root.hex() == SHIPPED_ROOT


def test_progress_counts_to_the_last_byte(tiny_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with GgufFile(tiny_path) as file:
        manifest = build_manifest(file, lambda done, total: seen.append((done, total)))
    assert len(seen) == len(manifest.tensors)
    assert seen[-1] == (sum(entry.byte_count for entry in manifest.tensors),) * 2


def test_the_sidecar_is_read_instead_of_the_tensors(tiny_path: Path) -> None:
    with GgufFile(tiny_path) as file:
        built = build_manifest(file)
        sidecar_path(tiny_path).write_text(to_sidecar(built))
        assert load_or_build(file, None, lambda done, total: pytest.fail("a tensor was hashed")) == built


def test_a_manifest_that_was_asked_for_must_be_there(tiny_path: Path, tmp_path: Path) -> None:
    with (
        GgufFile(tiny_path) as file,
        pytest.raises(ModelError, match=r"none\.json: can not be read: No such file"),
    ):
        load_or_build(file, tmp_path / "none.json")


def test_a_sidecar_of_another_model_is_named(tiny_path: Path, manifest: ModelManifest) -> None:
    sidecar_path(tiny_path).write_text(to_sidecar(manifest))
    with (
        GgufFile(tiny_path) as file,
        pytest.raises(ModelError, match=r"manifest\.json: describes other tensors"),
    ):
        load_or_build(file)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{}", b"[" * 100_000])
def test_a_damaged_sidecar_is_named(tiny_path: Path, content: bytes) -> None:
    sidecar_path(tiny_path).write_bytes(content)
    with GgufFile(tiny_path) as file, pytest.raises(ModelError, match=r"tiny\.gguf\.manifest\.json: "):
        load_or_build(file)


def test_other_bytes_are_refused_with_both_digests(tiny_path: Path) -> None:
    with GgufFile(tiny_path) as file:
        manifest = build_manifest(file)
        offset = file.tensors["blk.1.attn_v.weight"].offset
    flip(tiny_path, offset)
    with GgufFile(tiny_path) as file:
        found, expected = (m.entry("blk.1.attn_v.weight") for m in (build_manifest(file), manifest))
        assert found is not None
        assert expected is not None
        with pytest.raises(ModelError) as caught:
            StageEngine.load(file, manifest, LayerRange(1, 2))
    assert str(caught.value) == (
        f"{tiny_path}: tensor blk.1.attn_v.weight has SHA-256 {found.sha256.hex()}, "
        f"the manifest has {expected.sha256.hex()}"
    )


def test_other_bytes_in_a_layer_concern_only_those_who_load_it(tiny_path: Path) -> None:
    with GgufFile(tiny_path) as file:
        manifest = build_manifest(file)
        offset = file.tensors["blk.1.attn_v.weight"].offset
    flip(tiny_path, offset)
    with GgufFile(tiny_path) as file:
        StageEngine.load(file, manifest, LayerRange(0, 1))
        ClientModel.load(file, manifest)


def test_other_metadata_is_refused_by_every_role(tiny_path: Path) -> None:
    with GgufFile(tiny_path) as file:
        manifest = build_manifest(file)
    content = tiny_path.read_bytes()
    tiny_path.write_bytes(content.replace(b"<|start|>assistant", b"<|start|>assistanT"))
    with GgufFile(tiny_path) as file:
        with pytest.raises(ModelError, match=r"metadata has SHA-256 \w{64}, the manifest has \w{64}"):
            StageEngine.load(file, manifest, LayerRange(0, 1))
        with pytest.raises(ModelError, match="metadata has SHA-256"):
            ClientModel.load(file, manifest)


def test_the_manifest_of_another_model_is_refused_by_its_numbers(
    tiny_path: Path, manifest: ModelManifest
) -> None:
    with (
        GgufFile(tiny_path) as file,
        pytest.raises(ModelError, match=r"'llama', 3, 32.* manifest has .*30, 576"),
    ):
        verify_tensors(file, manifest, ["token_embd.weight"])


def test_a_tensor_that_the_manifest_lacks_is_refused(tiny_path: Path) -> None:
    with GgufFile(tiny_path) as file:
        manifest = build_manifest(file)
        with pytest.raises(
            ModelError, match=r"tensor blk\.9\.attn_q\.weight is not in the manifest with root"
        ):
            verify_tensors(file, manifest, ["blk.9.attn_q.weight"])
