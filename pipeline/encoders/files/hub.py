"""Models on the hub: a revision is pinned to its commit once; after that its cache on the node answers.

`HF_HUB_OFFLINE`, `HF_ENDPOINT`, `HF_HOME` and `HF_TOKEN` mean what they mean to huggingface_hub.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, hf_hub_download, model_info, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined] # httpx's, or its heir's
from huggingface_hub.utils.tqdm import disable_progress_bars

from pipeline.encoders.files import layout
from pipeline.exceptions import ModelError

ANSWER_SECONDS = 10.0
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WEIGHTLESS = ("Pooling", "Normalize")


def is_commit(revision: str | None) -> bool:
    """Tell a commit from a branch, a tag or nothing."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def resolve(
    model: str,
    revision: str | None,
    *,
    pickles: bool,
    code: bool = False,
    check: Callable[[Path], object] | None = None,
) -> Path:
    """Pin a revision to its commit and bring what is missing of its files to this node, with `code` its code too.

    `check` sees the folder before any weights come, and raises where they need not.

    Returns:
        The snapshot folder in the hub's cache, which has the commit for its name.

    Raises:
        ModelError: there is no such model or revision, or the hub does not answer.
    """
    with _explained(model, revision):
        present = _in_cache(model, revision, [layout.CONFIG])
        # which code a commit has only the hub knows
        whole = present is not None and is_commit(revision) and not code and _is_whole(present)
        if present is not None and (constants.HF_HUB_OFFLINE or whole):
            return present
        commit, names = _ask(model, revision)
        modules = _download(model, layout.MODULES, commit).read_bytes() if layout.MODULES in names else None
        layout.refuse_foreign(names, modules)
        wanted = layout.files_that_count(names, layout.module_folders(modules), pickles=pickles, code=code)
        weights = list(filter(layout.is_weights, wanted))
        snapshot = _download_all(model, commit, [name for name in wanted if name not in weights])
        if check is not None:
            check(snapshot)
        _download_each(model, commit, weights)
        if not is_commit(revision):
            # so that the cache remembers, for HF_HUB_OFFLINE, which commit the name means
            _download(model, layout.CONFIG, revision)
        return snapshot


def restore(model: str, commit: str, names: list[str]) -> Path:
    """Find a plan's files in the hub's cache; asks the hub only where one is not there.

    Raises:
        ModelError: they are not there and the hub does not give them.
    """
    with _explained(model, commit):
        present = _in_cache(model, commit, names)
        if present is not None:
            return present
        _ask(model, commit)
        return _download_all(model, commit, names)


def _ask(model: str, revision: str | None) -> tuple[str, list[str]]:
    """Return the commit behind a revision and its file names, or fail at once where a download would retry."""
    if constants.HF_HUB_OFFLINE:
        raise ModelError(model, "is neither a folder here nor whole in the hub's cache, and HF_HUB_OFFLINE is set")
    info = model_info(model, revision=revision, timeout=ANSWER_SECONDS)
    return str(info.sha), [file.rfilename for file in info.siblings or []]


def _download_all(model: str, commit: str, names: list[str]) -> Path:
    return _download_each(model, commit, names)[layout.CONFIG].parent


def _download_each(model: str, commit: str, names: list[str]) -> dict[str, Path]:
    return {name: _download(model, name, commit) for name in names}


def _download(model: str, name: str, revision: str | None) -> Path:
    """Return a file's path in the hub's cache; a commit's file that is there costs no request."""
    disable_progress_bars()
    return Path(hf_hub_download(model, name, revision=revision, etag_timeout=ANSWER_SECONDS))


def _in_cache(model: str, revision: str | None, names: list[str]) -> Path | None:
    """Return the snapshot folder if it has all these files."""
    found = [try_to_load_from_cache(model, name, revision=revision) for name in names]
    if not all(isinstance(path, str) for path in found):
        return None
    return Path(str(found[names.index(layout.CONFIG)])).parent


def _is_whole(snapshot: Path) -> bool:
    """Tell a snapshot that surely has all it needs from one that another tool may have filled in part."""
    modules = snapshot / layout.MODULES
    if not modules.is_file() or not (snapshot / "tokenizer.json").is_file():
        return False
    if not layout.has_weights([path.name for path in snapshot.iterdir()]):
        return False
    folders = [snapshot / folder for folder in layout.module_folders(modules.read_bytes())[1:]]
    needed = [folder / layout.CONFIG for folder in folders if not folder.name.endswith("Normalize")]
    needed += [folder / "model.safetensors" for folder in folders if not folder.name.endswith(_WEIGHTLESS)]
    return all(path.is_file() for path in needed)


@contextmanager
def _explained(model: str, revision: str | None) -> Iterator[None]:
    """Turn the hub client's errors into one line that says what to do."""
    owner = "" if "/" in model else f"; hub ids name an owner, as sentence-transformers/{model}"
    try:
        yield
    except HFValidationError as error:
        raise ModelError(model, "is neither a folder here nor a hub id such as 'owner/name'") from error
    except GatedRepoError as error:
        raise ModelError(model, "is gated: accept its terms on the hub and set HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        reason = "is neither a folder here nor a repository on the hub (a private one needs HF_TOKEN)"
        raise ModelError(model, f"{reason}{owner}") from error
    except RevisionNotFoundError as error:
        raise ModelError(model, f"has no revision {revision!r} on the hub") from error
    except (TransportError, EntryNotFoundError, OSError) as error:
        first = str(error).partition("\n")[0]
        reason = f"is no folder here and {constants.ENDPOINT} does not give it: {first}"
        raise ModelError(model, f"{reason} (HF_HUB_OFFLINE=1 takes what this node's cache holds){owner}") from error
    except ValueError as error:
        raise ModelError(model, str(error)) from error
