"""The manifest as a value: its root, its proofs, and its text."""

import dataclasses
import json

import pytest

from odsi_proto.errors import ModelError
from odsi_proto.wire.manifest import (
    NAME_BYTES_MAX,
    InclusionProof,
    ModelManifest,
    TensorEntry,
    from_sidecar,
    to_sidecar,
    verify,
)


def entry(index: int) -> TensorEntry:
    return TensorEntry(
        name=f"t{index}",
        shape=(index + 1, 32),
        type="Q4_0",
        byte_count=18 * (index + 1),
        sha256=bytes([index] * 32),
    )


MANIFEST = ModelManifest(
    architecture="llama",
    layers_count=2,
    width=32,
    metadata_sha256=bytes(range(32)),
    tensors=tuple(entry(index) for index in range(5)),
)
ROOT = "bc5c2d7e5e5c83c44f4b0a6bf2a18d63062c1017fa7108973b494821822aec12"
"""A golden value: it changes only if the format does."""


def test_the_root_is_the_one_it_always_was() -> None:
    assert MANIFEST.root.hex() == ROOT


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_every_tensor_proves_itself_against_the_root(count: int) -> None:
    manifest = dataclasses.replace(MANIFEST, tensors=MANIFEST.tensors[:count])
    for tensor in manifest.tensors:
        assert verify(tensor, manifest.prove(tensor.name), manifest.root)


CHANGED = {
    "name": {"name": "t9"},
    "shape": {"shape": (3, 31)},
    "dimensions": {"shape": (3, 32, 1)},
    "type": {"type": "Q4_1"},
    "byte count": {"byte_count": 53},
    "digest": {"sha256": bytes(32)},
}


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED.keys())
def test_a_changed_tensor_does_not_prove_itself(change: dict[str, object]) -> None:
    changed = dataclasses.replace(entry(2), **change)
    assert not verify(changed, MANIFEST.prove("t2"), MANIFEST.root)


HEAD_CHANGES = {
    "architecture": {"architecture": "qwen3"},
    "layers": {"layers_count": 3},
    "width": {"width": 64},
    "metadata": {"metadata_sha256": bytes(32)},
    "order of tensors": {"tensors": MANIFEST.tensors[::-1]},
    "fewer tensors": {"tensors": MANIFEST.tensors[:4]},
}


@pytest.mark.parametrize("change", HEAD_CHANGES.values(), ids=HEAD_CHANGES.keys())
def test_everything_that_a_model_says_of_itself_moves_the_root(change: dict[str, object]) -> None:
    assert dataclasses.replace(MANIFEST, **change).root != MANIFEST.root


WRONG_PROOFS = {
    "of another tensor": MANIFEST.prove("t3"),
    "at another index": dataclasses.replace(MANIFEST.prove("t2"), index=2),
    "at the head": dataclasses.replace(MANIFEST.prove("t2"), index=0),
    "in a smaller tree": dataclasses.replace(MANIFEST.prove("t2"), size=4),
    "too short": dataclasses.replace(MANIFEST.prove("t2"), siblings=MANIFEST.prove("t2").siblings[:-1]),
    "too long": dataclasses.replace(
        MANIFEST.prove("t2"), siblings=(*MANIFEST.prove("t2").siblings, bytes(32))
    ),
    "of nothing": InclusionProof(index=1, size=0, siblings=()),
}


@pytest.mark.parametrize("proof", WRONG_PROOFS.values(), ids=WRONG_PROOFS.keys())
def test_a_wrong_proof_proves_nothing(proof: InclusionProof) -> None:
    assert not verify(entry(2), proof, MANIFEST.root)


def test_the_text_comes_back_as_the_same_manifest() -> None:
    assert from_sidecar(to_sidecar(MANIFEST), "m.json") == MANIFEST


def test_the_text_is_the_same_each_time_and_has_a_line_for_each_tensor() -> None:
    text = to_sidecar(MANIFEST)
    assert text == to_sidecar(dataclasses.replace(MANIFEST))
    assert text.count("\n") == 15
    assert json.loads(text)["format"] == "odsi-manifest/1"


def test_a_stated_root_that_is_not_the_contents_is_refused_with_both() -> None:
    text = to_sidecar(MANIFEST).replace(MANIFEST.root.hex(), "00" * 32)
    with pytest.raises(ModelError) as caught:
        from_sidecar(text, "m.json")
    assert str(caught.value) == f"m.json: states root {'00' * 32}, its content has {MANIFEST.root.hex()}"


def test_a_changed_tensor_is_refused_with_both_roots() -> None:
    text = to_sidecar(MANIFEST).replace('"bytes": 36', '"bytes": 37')
    with pytest.raises(
        ModelError, match=rf"m.json: states root {MANIFEST.root.hex()}, its content has \w{{64}}"
    ):
        from_sidecar(text, "m.json")


def changed(**fields: object) -> str:
    return json.dumps(json.loads(to_sidecar(MANIFEST)) | fields)


def with_tensor(**fields: object) -> str:
    return changed(
        tensors=[{"name": "t", "shape": [1], "type": "F32", "bytes": 4, "sha256": "00" * 32} | fields]
    )


REFUSED = {
    "not JSON": ("{", "not JSON: "),
    "deep": ("[" * 100_000, "not JSON: "),
    "a list": ("[]", "the manifest is not a JSON object"),
    "another format": (
        changed(format="odsi-manifest/2"),
        "format 'odsi-manifest/2', expected 'odsi-manifest/1'",
    ),
    "no architecture": (changed(architecture=None), "the manifest: architecture is not printable text"),
    "a long architecture": (
        changed(architecture="é" * NAME_BYTES_MAX),
        "the manifest: architecture is not printable",
    ),
    "half a character": (changed(architecture="\ud800"), "the manifest: architecture is not printable text"),
    "layers in text": (changed(layers="2"), "the manifest: layers is not an integer"),
    "layers a truth": (changed(layers=True), "the manifest: layers is not an integer"),
    "layers below 0": (changed(layers=-1), "the manifest: layers is not an integer"),
    "a giant number": (changed(width=2**63), "the manifest: width is not an integer"),
    "a short root": (changed(root="00"), "the manifest: root is not 64 hexadecimal digits"),
    "tensors in an object": (changed(tensors={}), "the manifest: tensors is not a list"),
    "too many tensors": (
        changed(tensors=[0] * 65_537),
        "the manifest: tensors is not a list of at most 65536",
    ),
    "a tensor in text": (changed(tensors=["t"]), "tensor 0 is not a JSON object"),
    "a name with a line feed": (with_tensor(name="a\nb"), "tensor 0: name is not printable text"),
    "five dimensions": (with_tensor(shape=[1] * 5), "tensor 0: shape is not a list of at most 4"),
    "half a row": (with_tensor(shape=[0.5]), "tensor 0: shape is not integers"),
    "a digest in capitals": (with_tensor(sha256="AA" * 32), "tensor 0: sha256 is not 64 hexadecimal digits"),
    "the same name twice": (
        changed(tensors=json.loads(to_sidecar(MANIFEST))["tensors"][:1] * 2),
        "two tensors have the same name",
    ),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_text_that_is_no_manifest_names_source_and_field(text: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        from_sidecar(text, "m.json")
    assert str(caught.value).startswith(f"m.json: {message}")
