"""Pickled weights to safetensors, once a node, in a process that does nothing else and is thrown away.

`torch.load(weights_only=True)` builds tensors and runs nothing else; the process has no credentials and
may neither connect nor start programs, should that ever fail. The same pickle gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.encoders.files import layout, staging
from pipeline.exceptions import ModelError

if TYPE_CHECKING:
    from torch import Tensor

SOURCES = ".sources.json"
"""In a converted folder: the sha256 of each pickle it was made from. No file of a model has this name."""
MINIMUM_TORCH = (2, 10)
"""Before it a crafted file could break out of `weights_only` (CVE-2026-24747)."""
REFUSED = 3
_FORBIDDEN_EVENTS = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "pty.")


def convert(model: str, folder: Path, names: list[str], pickles: list[str]) -> tuple[Path, dict[str, str]]:
    """Return a folder of this node's cache with the same model in safetensors, and its pickles' sha256.

    Args:
        model: what the user calls it.
        folder: where its files are.
        names: the files that count.
        pickles: those among them to convert, indexes included.

    Raises:
        ModelError: a pickle is not plain tensors, or cannot be converted.
    """

    def fill(target: Path) -> None:
        hashes = {name: sha256_of(folder / name) for name in pickles}
        for name in names:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            if name not in pickles:
                shutil.copyfile(folder / name, target / name)
        _run(model, folder, target, pickles)
        (target / SOURCES).write_text(json.dumps(hashes, sort_keys=True))

    try:
        converted = staging.stage(_key(folder, names), fill)
        sources: dict[str, str] = json.loads((converted / SOURCES).read_bytes())
    except OSError as error:
        raise ModelError(model, f"cannot convert its pickles: {error}") from error
    return converted, sources


def sha256_of(path: Path) -> str:
    """Hash a file in small pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _key(folder: Path, names: list[str]) -> str:
    """Name the conversion of these very files; their bytes are hashed when they are read."""
    stats = [(name, (folder / name).stat()) for name in names]
    text = json.dumps([str(folder), [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]])
    return "converted-" + hashlib.sha256(text.encode()).hexdigest()[:32]


def _run(model: str, source: Path, target: Path, pickles: list[str]) -> None:
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    # no credential and no device reaches the process
    environment = {**kept, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pipeline.encoders.files.pickled", str(source), str(target), *pickles]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode < 0:
        raise ModelError(model, f"converting its pickles was killed by signal {-done.returncode} (out of memory?)")
    if done.returncode != 0:
        last = done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
        raise ModelError(model, last if done.returncode == REFUSED else f"cannot convert its pickles: {last}")


def main(arguments: list[str]) -> int:
    """Convert the named pickles of one folder into another: SOURCE TARGET NAME..."""
    source, target, *names = arguments
    import torch

    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < MINIMUM_TORCH:
        print(f"convert_pickle needs torch 2.10 or newer, this is {torch.__version__}", file=sys.stderr)  # noqa: T201
        return REFUSED
    sys.addaudithook(_forbid)
    for name in names:
        try:
            _convert_one(Path(source, name), Path(target, layout.converted_name(name)))
        except (pickle.UnpicklingError, ValueError) as error:
            print(f"{name} is not plain tensors and was not run: {_why(error)}", file=sys.stderr)  # noqa: T201
            return REFUSED
    return 0


def _convert_one(source: Path, target: Path) -> None:
    from safetensors.torch import save_file

    if source.name == layout.PICKLE_INDEX:
        target.write_bytes(_converted_index(json.loads(source.read_bytes())))
        return
    import torch

    # tensors of the zip format are paged in when they are written; older pickles are read whole
    state = torch.load(source, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(source))
    save_file(_separate(state), target, metadata={"format": "pt"})


def _separate(state: Any) -> dict[str, Tensor]:
    """Give each name its own dense memory: safetensors has no tensors that share it."""
    import torch

    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError("it holds something else than named tensors")
    seen: set[int] = set()
    separate = {}
    for name, tensor in state.items():
        pointer = tensor.untyped_storage().data_ptr()
        own = pointer not in seen and tensor.is_contiguous()
        seen.add(pointer)
        separate[name] = tensor if own else tensor.clone(memory_format=torch.contiguous_format)
    return separate


def _converted_index(index: dict[str, Any]) -> bytes:
    layout.shards_of(index)
    weight_map = {tensor: layout.converted_name(shard) for tensor, shard in index["weight_map"].items()}
    return json.dumps({"metadata": index.get("metadata", {}), "weight_map": weight_map}, sort_keys=True).encode()


def _forbid(event: str, _: tuple[Any, ...]) -> None:
    if event.startswith(_FORBIDDEN_EVENTS):
        raise PermissionError(f"a process that converts pickles may not use {event}")


def _why(error: Exception) -> str:
    """Say what a pickle asks for; torch's own text would advise to switch the protection off."""
    if not isinstance(error, pickle.UnpicklingError):
        return str(error)
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f"it asks for {found[1]}" if found else "it is damaged, or asks for more than tensors"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
