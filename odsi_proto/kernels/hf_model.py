"""A model as Hugging Face lays it out: a directory with config.json and safetensors files.

Tensors get the names of ``source``. The directory is its user's own, links in it are followed (the
cache of ``huggingface_hub`` is made of them); what its files say is a stranger's, so the index may
name only files that lie directly in it.
"""

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from odsi_proto.kernels.hf_names import is_derived, own_name
from odsi_proto.kernels.json_text import JsonFields, parse_object, read_bounded
from odsi_proto.kernels.safetensors import HEADER_BYTES_MAX, SafetensorsFile
from odsi_proto.kernels.source import ModelSource, TensorInfo

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
CHAT_TEMPLATE = "chat_template.jinja"

FILES_BYTES_MAX = {
    CONFIG: 1 << 20,
    GENERATION_CONFIG: 1 << 20,
    TOKENIZER: 64 << 20,
    TOKENIZER_CONFIG: 8 << 20,
    CHAT_TEMPLATE: 1 << 20,
}
"""What decides an answer besides the tensors, in the order of the manifest (specs/07, section 3), with
a bound several times what models in use have: vocabularies of 256,000 tokens make 33 MB."""

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

SHARDS_MAX = 1_024
"""Files of a model: the largest published have some 200."""

_SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}\.safetensors")


class HfModel(ModelSource):
    """An open model directory."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._contents: dict[str, bytes | None] = {}
        self._shards: list[SafetensorsFile] = []
        self._places: dict[str, tuple[SafetensorsFile, TensorInfo]] = {}
        try:
            if self.content(CONFIG) is None:
                self.fail(f"holds no {CONFIG}")
            self._open_shards()
        except BaseException:
            self.close()
            raise
        # By name, so that how the tensors are spread over files changes no manifest.
        self._tensors = {name: self._places[name][1] for name in sorted(self._places)}

    def close(self) -> None:
        """Let go of the files."""
        for shard in self._shards:
            shard.close()

    @property
    def metadata(self) -> memoryview:
        """The files of ``FILES_BYTES_MAX``, each after its length; one that is not there is empty."""
        parts = []
        for name in FILES_BYTES_MAX:
            content = self.content(name) or b""
            parts += [len(content).to_bytes(8, "big"), content]
        return memoryview(b"".join(parts))

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """By name, in ascending order of their UTF-8 bytes."""
        return self._tensors

    def raw(self, name: str) -> memoryview:
        """The bytes of tensor ``name``."""
        place = self._places.get(name)
        if place is None:
            self.fail(f"tensor {name} is missing")
        shard, info = place
        return shard.raw(info)

    @property
    def byte_count(self) -> int:
        """Bytes of all files with tensors."""
        return sum(shard.byte_count for shard in self._shards)

    @property
    def title(self) -> str | None:
        """The last part of the name under which the model was published, or the directory's."""
        return (self.config.text("_name_or_path") or "").rpartition("/")[2] or self.path.resolve().name

    @property
    def chat_template(self) -> str | None:
        """The template of a conversation: in a file of its own, or in tokenizer_config.json."""
        own = self.content(CHAT_TEMPLATE)
        if own:
            try:
                return own.decode("utf-8")
            except UnicodeDecodeError:
                self.fail(f"{CHAT_TEMPLATE} is not UTF-8 text")
        settings = self.fields(TOKENIZER_CONFIG)
        if not isinstance(settings.value("chat_template"), list):
            return settings.text("chat_template")
        for entry in settings.items("chat_template") or ():
            if isinstance(entry, dict) and entry.get("name") == "default":
                return JsonFields(entry, self.path / TOKENIZER_CONFIG, "chat_template.").text("template")
        return None

    @cached_property
    def config(self) -> JsonFields:
        """What config.json says."""
        return self.fields(CONFIG)

    def fields(self, name: str) -> JsonFields:
        """What one of the JSON files says; nothing if it is not there."""
        content = self.content(name)
        values = {} if content is None else parse_object(content, self.path / name)
        return JsonFields(values, self.path / name)

    def content(self, name: str) -> bytes | None:
        """One of ``FILES_BYTES_MAX``, read once: what is computed with is what the manifest hashes."""
        if name not in self._contents:
            self._contents[name] = read_bounded(self.path / name, FILES_BYTES_MAX[name])
        return self._contents[name]

    def _open_shards(self) -> None:
        for shard_name, named in self._shard_names().items():
            shard = SafetensorsFile(self.path / shard_name)
            self._shards.append(shard)
            if named is not None and (missing := named - set(shard.tensors)):
                self.fail(f"{INDEX} has tensor {min(missing)!a:.100} in {shard_name}, which lacks it")
            for name, info in shard.tensors.items():
                if named is not None and name not in named:
                    self.fail(f"{shard_name} has tensor {name}, which {INDEX} does not have there")
                if not is_derived(name):
                    self._place(shard, name, info)

    def _place(self, shard: SafetensorsFile, name: str, info: TensorInfo) -> None:
        own = own_name(name)
        if own is None:
            self.fail(
                f"{shard.path.name} has tensor {name}, which has no place in the architectures "
                "that are known; leaving it out would change the answers"
            )
        self._places[own] = (
            shard,
            TensorInfo(
                name=own, shape=info.shape, type=info.type, offset=info.offset, byte_count=info.byte_count
            ),
        )

    def _shard_names(self) -> dict[str, set[str] | None]:
        """The files to open, each with the tensors that the index has in it if there is an index."""
        if (self.path / WEIGHTS).exists():  # comes first wherever such directories are read
            return {WEIGHTS: None}
        content = read_bounded(self.path / INDEX, HEADER_BYTES_MAX)
        if content is None:
            self.fail(f"holds neither {WEIGHTS} nor {INDEX}")
        index = self.path / INDEX
        weight_map = parse_object(content, index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            JsonFields({}, index).fail("key weight_map is missing or not an object with tensors in it")
        shards: dict[str, set[str] | None] = {}
        by_name: dict[str, set[str]] = {}
        for tensor, shard in weight_map.items():
            if not isinstance(shard, str) or not _SHARD.fullmatch(shard):
                JsonFields({}, index).fail(
                    f"tensor {tensor!a:.100} is in {str(shard)!a:.100}, expected the plain name of a "
                    ".safetensors file in the same directory"
                )
            by_name.setdefault(shard, set()).add(tensor)
        if len(by_name) > SHARDS_MAX:
            JsonFields({}, index).fail(f"{len(by_name)} files, expected at most {SHARDS_MAX}")
        shards.update(sorted(by_name.items()))
        return shards
