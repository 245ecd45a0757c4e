"""A prefix on S3 as a store: one conditional PUT creates an object.

Errors of the client are sorted into three kinds: permission (the user's to mend), taken (an answer, not
an error), and transient (tried again here).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import aiohttp
import stamina
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from pipeline.exceptions import ConfigError, TransientStorageError
from pipeline.storage.base import StoredObject, check_key, open_filesystem

SINGLE_PUT_BYTES = 5 << 30
RETRY_ATTEMPTS = 6
RETRY_SECONDS = 60.0

T = TypeVar("T")

_CLIENT_ERRORS = (OSError, BotoCoreError, ClientError, aiohttp.ClientError, asyncio.TimeoutError)


class S3Store:
    """A prefix on S3 or a store that speaks it; see `Store` for the calls."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._fs, self._root = open_filesystem(uri)

    def read(self, key: str) -> bytes | None:
        """Get a whole object, or None where there is none."""
        with suppress(FileNotFoundError):
            data: bytes = self._request(key, self._fs.cat_file)
            return data
        return None

    def create(self, key: str, data: bytes) -> bool:
        """Put with `If-None-Match: *` in one request; False where the key is taken.

        After a lost reply the client's own retry finds the object of its first try, so False does not tell
        who made it: the caller reads it back.
        """
        try:
            self._request(key, lambda path: self._put(path, data, "create"))
        except FileExistsError:
            return False
        return True

    def replace(self, key: str, data: bytes) -> None:
        """Put unconditionally."""
        self._request(key, lambda path: self._put(path, data, "overwrite"))

    def head(self, key: str) -> StoredObject | None:
        """Describe one object, or None where there is none."""
        with suppress(FileNotFoundError):
            return self._describe(self._request(key, lambda path: self._fs.info(path, refresh=True)))
        return None

    def list(self, prefix: str) -> list[StoredObject]:
        """List all objects below a prefix."""
        found = self._request(prefix, lambda path: self._fs.find(path, detail=True))
        return [self._describe(found[path]) for path in sorted(found)]

    def delete(self, key: str) -> None:
        """Remove one object."""
        with suppress(FileNotFoundError):
            self._request(key, self._fs.rm_file)

    def _put(self, path: str, data: bytes, mode: str) -> None:
        # above twice the chunk size s3fs would go multipart, whose condition some stores ignore
        self._fs.pipe_file(path, data, mode=mode, chunksize=SINGLE_PUT_BYTES)

    def _describe(self, info: dict[str, Any]) -> StoredObject:
        key = str(info["name"])[len(self._root) :].lstrip("/")
        return StoredObject(key=key, size=int(info["size"]), etag=str(info["ETag"]).strip('"'))

    def _request(self, key: str, act: Callable[[str], T]) -> T:
        path = f"{self._root}/{check_key(key)}" if key else self._root
        for attempt in stamina.retry_context(
            on=TransientStorageError,
            attempts=RETRY_ATTEMPTS,
            timeout=RETRY_SECONDS,
            wait_initial=0.2,
            wait_max=10.0,
        ):
            with attempt:
                try:
                    return act(path)
                except (FileExistsError, FileNotFoundError) as error:
                    raise _missing_bucket(path, error) or error from error
                except _CLIENT_ERRORS as error:
                    raise _classified(path, error) from error
        raise AssertionError  # retry_context returns or raises


def _classified(path: str, error: Exception) -> Exception:
    code, status = error_code(error)
    # RGW answers 412 without the element that s3fs looks for
    if code == "PreconditionFailed" or status == 412:
        return FileExistsError(path)
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return ConfigError("output.uri", f"no credentials for {path!r}: set them in the environment")
    if isinstance(error, PermissionError) or status in (401, 403):
        return ConfigError("output.uri", f"permission denied for {path!r} ({code or status})")
    return TransientStorageError(path, f"{type(error).__name__}: {error}")


def _missing_bucket(path: str, error: Exception) -> Exception | None:
    if error_code(error)[0] == "NoSuchBucket":
        return ConfigError("output.uri", f"no such bucket: {path.partition('/')[0]!r}")
    return None


def error_code(error: BaseException) -> tuple[str, int]:
    """Find the S3 error code and HTTP status in a client's error or in what caused it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ClientError):
            status = seen.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return seen.response["Error"].get("Code", ""), status
        seen = seen.__cause__
    return "", 0
