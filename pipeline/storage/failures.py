"""What a store's client raises, told apart: what only the user can mend, and what may pass by itself.

Imports the clients, so import it where something has already failed.
"""

from __future__ import annotations

import asyncio

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.exceptions import ConnectionError as BotoConnectionError

from pipeline.exceptions import SourceReadError, TransientStorageError

CLIENT_ERRORS = (OSError, BotoCoreError, ClientError, aiohttp.ClientError, asyncio.TimeoutError)
_NO_ANSWER = (
    *(BotoConnectionError, HTTPClientError, aiohttp.ClientError, asyncio.TimeoutError),
    *(ConnectionResetError, ConnectionRefusedError, ConnectionAbortedError),
)


def hub_errors() -> tuple[type[Exception], type[Exception]]:
    """Return the root of what the hub's client raises, and of it what is an answer."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.errors import HTTPError as HubError  # type: ignore[attr-defined] # httpx's, or its heir's

    return HubError, HfHubHTTPError


def error_code(error: BaseException) -> tuple[str, int]:
    """Find the S3 error code and HTTP status in a client's error or in what caused it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ClientError):
            status = seen.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return seen.response["Error"].get("Code", ""), status
        seen = seen.__cause__
    return "", 0


def mendable(error: BaseException) -> str | None:
    """Say what only the user can mend, or None."""
    code, status = error_code(error)
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return "no credentials; set them in the environment"
    if isinstance(error, ParamValidationError):
        return "not a valid name"
    if isinstance(error, ProfileNotFound | ValueError):  # botocore's ValueError: an endpoint that is no URL
        return f"{error} (by the AWS variables or files of this machine)"
    if isinstance(error, PermissionError) or status in (401, 403):
        return f"permission denied ({code or status})" if code or status else "permission denied"
    return None


def may_pass(error: BaseException) -> bool:
    """Tell whether the store did not answer, or could not just now."""
    if isinstance(error, _NO_ANSWER) or error_code(error)[1] >= 500:
        return True
    if not type(error).__module__.startswith(("httpx", "huggingface_hub")):
        return False
    return not isinstance(error, hub_errors()[1])


def source_failure(path: str, error: BaseException) -> SourceReadError | TransientStorageError:
    """Return the error of an input that cannot be read: what may pass is worth another try, anything else is not."""
    if may_pass(error):
        return TransientStorageError(path, f"{type(error).__name__}: {error}")
    return SourceReadError(path, mendable(error) or str(error))
