"""Which files of a published model count, decided by their names alone.

The same rule holds for a folder, a listing of a bucket and one of the hub: the JSON files and weights in
the root and in the folders that `modules.json` names. ONNX and OpenVINO copies never count, and code, which stands in
the root, only where a job trusts it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

CONFIG = "config.json"
MODULES = "modules.json"
SAFETENSORS_INDEX = "model.safetensors.index.json"
PICKLE_INDEX = "pytorch_model.bin.index.json"
ADAPTER = "adapter_config.json"
TOKENIZER = "tokenizer.json"
VOCABULARY = "vocab.txt"
"""What older repositories have of BERT's tokenizer; it counts where there is no tokenizer.json."""
_SAFETENSORS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
_PICKLE = re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin")


def module_folders(modules: bytes | None) -> list[str]:
    """Return the folders that `modules.json` names, the root "" first; only the root where there is none.

    Raises:
        ValueError: it is not a list of modules, or a path leads out of the model's folder.
    """
    folders = [""]
    for module in _modules(modules) if modules is not None else []:
        path = PurePosixPath(module["path"])
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{MODULES} names {module['path']!r}, outside the model's folder")
        if path.parts and path.as_posix() not in folders:
            folders.append(path.as_posix())
    return folders


def refuse_foreign(names: Collection[str], modules: bytes | None) -> None:
    """Refuse what is no transformer with its configuration, by what is there.

    Raises:
        ValueError: saying what is there instead, and what to do.
    """
    if ADAPTER in names:
        # transformers would load the model it adapts and add it; its weights alone are another model's
        reason = "merge them (PEFT's merge_and_unload), save the whole model and name that folder"
        raise ValueError(f"it holds an adapter ({ADAPTER}) to another model's weights; {reason}")
    if CONFIG in names:
        return
    found = _modules(modules) if modules is not None else []
    if found:
        kind = str(found[0].get("type")).rpartition(".")[2]
        reason = f"its first module is {kind} in {found[0]['path']!r}"
        raise ValueError(f"no {CONFIG} in its root: {reason}; embatch runs a Transformer in the folder itself")
    raise ValueError(f"it holds no {CONFIG}")


def is_weights(name: str) -> bool:
    """Tell weights from the small files that say what they are."""
    return name.endswith((".safetensors", ".bin"))


def is_read_by_tokenizers(name: str) -> bool:
    """Tell the files that the preparing half goes by."""
    return name.endswith(".json") or name == VOCABULARY


def _modules(content: bytes) -> list[dict[str, str]]:
    try:
        modules = json.loads(content)
    except ValueError as error:
        raise ValueError(f"{MODULES} is not JSON: {error}") from error
    if not isinstance(modules, list) or not all(
        isinstance(module, dict) and isinstance(module.get("path"), str) for module in modules
    ):
        raise ValueError(f"{MODULES} is not a list of modules with paths")
    return modules


def files_that_count(
    names: Collection[str], folders: Iterable[str], *, pickles: bool = False, code: bool = False
) -> list[str]:
    """Choose from file names, sorted; with `pickles` also weights that are published as nothing else, with `code` it.

    Raises:
        ValueError: there are such weights, and `pickles` is false.
    """
    inside = {folder: [name for name in names if _parent(name) == folder] for folder in folders}
    chosen = [name for found in inside.values() for name in found if _is_plain(PurePosixPath(name).name)]
    if VOCABULARY in names and TOKENIZER not in names:
        chosen.append(VOCABULARY)
    lone = lone_pickles(names, inside)
    if lone and not pickles:
        reason = "can run code; encoder.convert_pickle: true converts them"
        raise ValueError(f"it has weights only as pickles ({lone[0]}), which {reason}")
    return sorted(chosen + lone + (code_of(names) if code else []))


def code_of(names: Iterable[str]) -> list[str]:
    """Return the code among file names."""
    return [name for name in names if name.endswith(".py") and not _parent(name)]


def lone_pickles(names: Collection[str], folders: Iterable[str]) -> list[str]:
    """Return the pickled weights of each folder that has no safetensors, with the index of a sharded one."""
    found = []
    for folder in folders:
        bases = {PurePosixPath(name).name: name for name in names if _parent(name) == folder}
        pickles = [base for base in bases if _PICKLE.fullmatch(base)]
        if any(_SAFETENSORS.fullmatch(base) for base in bases):
            continue
        if "pytorch_model.bin" in pickles:
            pickles = ["pytorch_model.bin"]
        elif pickles and PICKLE_INDEX in bases:
            pickles.append(PICKLE_INDEX)
        found += [bases[base] for base in pickles]
    return sorted(found)


def has_weights(names: Collection[str]) -> bool:
    """Tell whether the root holds safetensors, whole or by an index."""
    return "model.safetensors" in names or SAFETENSORS_INDEX in names


def converted_name(pickle: str) -> str:
    """Return what a pickle or a pickles' index is called after conversion to safetensors."""
    path = PurePosixPath(pickle)
    if path.name == PICKLE_INDEX:
        return path.with_name(SAFETENSORS_INDEX).as_posix()
    return path.with_name(path.name.removeprefix("pytorch_")).with_suffix(".safetensors").as_posix()


def pickles_of(files: Iterable[str]) -> list[str]:
    """Return which of a plan's files are pickles: the sources of a conversion."""
    return [name for name in files if _PICKLE.fullmatch(base := PurePosixPath(name).name) or base == PICKLE_INDEX]


def published(files: Iterable[str]) -> list[str]:
    """Return a plan's files as their author published them: pickles in place of what they became."""
    files = list(files)
    made = {converted_name(pickle) for pickle in pickles_of(files)}
    return [name for name in files if name not in made]


def shards_of(index: Mapping[str, Any]) -> set[str]:
    """Return the weight files that an index names.

    Raises:
        ValueError: it names none, or something that is not a weight file beside it.
    """
    weight_map = index.get("weight_map")
    shards = set(weight_map.values()) if isinstance(weight_map, dict) else set()
    if not shards or not all(
        isinstance(shard, str) and (_SAFETENSORS.fullmatch(shard) or _PICKLE.fullmatch(shard)) for shard in shards
    ):
        raise ValueError("the index of the weights names no weight files")
    return shards


def _is_plain(base: str) -> bool:
    if base.startswith(".") or base == PICKLE_INDEX:
        return False
    return base.endswith(".json") or _SAFETENSORS.fullmatch(base) is not None


def _parent(name: str) -> str:
    parent = PurePosixPath(name).parent.as_posix()
    return "" if parent == "." else parent
