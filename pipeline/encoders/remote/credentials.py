"""The key of an API, read where it is used: no config, plan, message or Ray object ever holds it."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

from pipeline.config import RemoteConfig
from pipeline.exceptions import ConfigError

_KEY = re.compile(r"[!#-\[\]-~]+")
"""What a header can carry, and JSON does not escape: so it is found, and left out, in whatever an API says."""


def read_key(remote: RemoteConfig) -> str | None:
    """Read the key from this node's environment or file; None where the job names neither.

    Raises:
        ConfigError: it is not there, or is no key. The message never repeats what was found.
    """
    if remote.api_key_env is not None:
        place, text = f"the variable {remote.api_key_env}", os.environ.get(remote.api_key_env, "")
    elif remote.api_key_file is not None:
        place = f"the file {remote.api_key_file}"
        try:
            text = Path(remote.api_key_file).expanduser().read_text(encoding="utf-8")
        except (OSError, RuntimeError, UnicodeDecodeError) as error:
            # a decoding error would repeat bytes of the file
            reason = getattr(error, "strerror", None) or "it is not text, or there is no home folder"
            raise ConfigError(key_name(remote), f"cannot read {place} on {socket.gethostname()}: {reason}") from None
    else:
        return None
    text = text.strip()
    if not text:
        what = f"{place} is not set or empty on {socket.gethostname()}"
        raise ConfigError(key_name(remote), f"{what}; it must be there on every node and where the command runs")
    if not _KEY.fullmatch(text):
        raise ConfigError(key_name(remote), f"{place} on {socket.gethostname()} holds no key: one word of ASCII")
    return text


def key_name(remote: RemoteConfig) -> str:
    """Return the key of the job that an error about the API's key is about."""
    if remote.api_key_env is not None:
        return "encoder.remote.api_key_env"
    return "encoder.remote.api_key_file" if remote.api_key_file is not None else "encoder.remote"
