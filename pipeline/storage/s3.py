"""A prefix on S3 as a store: every call is one request, and a conditional PUT creates an object.

Errors of the client are sorted into three kinds: the user's to mend (permission, no bucket), an answer
(taken, absent), and transient (tried again here, and only here: the client's own retries are off).
"""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import stamina

from pipeline.exceptions import ConfigError, TransientStorageError
from pipeline.storage.base import StoredObject, check_key, open_filesystem
from pipeline.storage.failures import CLIENT_ERRORS, error_code, mendable

RETRY_ATTEMPTS = 10
"""About 50 s of waiting: a partition of half a minute is outlived."""
RETRY_SECONDS = 60.0
RETRY_MAX_WAIT_SECONDS = 10.0

T = TypeVar("T")


class S3Store:
    """A prefix on S3 or a store that speaks it; see `Store` for the calls."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._fs, path = open_filesystem(uri, config_kwargs={"retries": {"max_attempts": 0}})
        self._fs.retries = 1
        self._bucket, _, root = path.partition("/")
        self._above = f"{root}/" if root else ""
        if not self._bucket:
            raise ConfigError("output.uri", f"{uri!r} names no bucket")

    def read(self, key: str) -> bytes | None:
        """Get a whole object, or None where there is none."""
        path = f"{self._bucket}/{self._above}{check_key(key)}"
        with suppress(FileNotFoundError):
            # by default s3fs would get parts side by side and put them together unchecked
            return _retried(path, lambda: bytes(self._fs.cat_file(path, max_concurrency=1)))
        return None

    def create(self, key: str, data: bytes) -> bool:
        """Put with `If-None-Match: *`; False where the key is taken.

        After a lost reply the next try finds the object of the first, so False does not tell who made it:
        the caller reads it back.
        """
        try:
            self._object("put_object", key, Body=data, ContentType=_type(key), IfNoneMatch="*")
        except FileExistsError:
            return False
        return True

    def replace(self, key: str, data: bytes) -> None:
        """Put unconditionally."""
        self._object("put_object", key, Body=data, ContentType=_type(key))

    def head(self, key: str) -> StoredObject | None:
        """Describe one object, or None where there is none."""
        with suppress(FileNotFoundError):
            found = self._object("head_object", key)
            return StoredObject(key=key, size=found["ContentLength"], etag=found["ETag"].strip('"'))
        return None

    def list(self, prefix: str) -> list[StoredObject]:
        """List all objects below a prefix."""
        folder = f"{self._above}{check_key(prefix)}/" if prefix else self._above
        return [
            StoredObject(key=entry["Key"].removeprefix(self._above), size=entry["Size"], etag=entry["ETag"].strip('"'))
            for page in self._pages(folder)
            for entry in page.get("Contents", [])
            if not entry["Key"].endswith("/")  # an empty object that consoles make for a folder
        ]

    def delete(self, key: str) -> None:
        """Remove one object."""
        self._object("delete_object", key)

    def clock(self) -> datetime | None:
        """Return the Date of an answer, which is in whole seconds."""
        answer = self._call("list_objects_v2", self._above, Prefix=self._above, MaxKeys=1)
        stamp = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        return None if stamp is None else parsedate_to_datetime(stamp)

    def _object(self, method: str, key: str, **arguments: Any) -> dict[str, Any]:
        name = f"{self._above}{check_key(key)}"
        return self._call(method, name, Key=name, **arguments)

    def _pages(self, folder: str) -> Iterator[dict[str, Any]]:
        page = self._call("list_objects_v2", folder, Prefix=folder)
        yield page
        while page.get("IsTruncated"):
            token = page["NextContinuationToken"]
            page = self._call("list_objects_v2", folder, Prefix=folder, ContinuationToken=token)
            yield page

    def _call(self, method: str, name: str, **arguments: Any) -> dict[str, Any]:
        path = f"{self._bucket}/{name}"
        return _retried(path, lambda: dict(self._fs.call_s3(method, Bucket=self._bucket, **arguments)))


def _retried(path: str, request: Callable[[], T]) -> T:
    for attempt in stamina.retry_context(
        on=TransientStorageError,
        attempts=RETRY_ATTEMPTS,
        timeout=RETRY_SECONDS,
        wait_initial=0.2,
        wait_max=RETRY_MAX_WAIT_SECONDS,
    ):
        with attempt:
            try:
                return request()
            except (ValueError, *CLIENT_ERRORS) as error:
                raise _classified(path, error) from error
    raise AssertionError  # retry_context returns or raises


def _type(key: str) -> str:
    """Return what a browser should take an object for: a report's page is to be shown, not saved."""
    return mimetypes.guess_type(key)[0] or "application/octet-stream"


def _classified(path: str, error: Exception) -> Exception:
    code, status = error_code(error)
    if code == "NoSuchBucket":
        return ConfigError("output.uri", f"no such bucket: {path.partition('/')[0]!r}")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(path)
    # RGW answers 412 without the element by which s3fs knows it
    if code == "PreconditionFailed" or status == 412:
        return FileExistsError(path)
    reason = mendable(error)
    if reason:
        return ConfigError("output.uri", f"{path!r}: {reason}")
    return TransientStorageError(path, f"{type(error).__name__}: {error}")
