"""The output store: a handful of calls on one prefix, the same on a local disk and on S3.

`create` is the only way anything is published: it makes an object appear whole, once, or says that the
name is taken. What is worth retrying is decided here and nowhere else.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.exceptions import ConfigError
from pipeline.storage.base import Store, StoredObject, client_errors, open_filesystem, split_uri
from pipeline.storage.local import LocalStore

__all__ = ["Store", "StoredObject", "client_errors", "open_filesystem", "open_store", "split_uri"]


def open_store(uri: str) -> Store:
    """Open the store for an output URI; touches nothing.

    Raises:
        ConfigError: the protocol has no create-only write that embatch knows.
    """
    protocol, path = split_uri(uri)
    if protocol == "file":
        return LocalStore(Path(path))
    if protocol in ("s3", "s3a"):
        from pipeline.storage.s3 import S3Store  # boto takes 0.3 s to import

        return S3Store(uri)
    raise ConfigError("output.uri", f"cannot commit to {protocol}://; outputs go to a local path or s3://")
