"""What an answer other than 200 means: a text is refused, another try may help, or the run must end."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pipeline.config import RemoteConfig
from pipeline.encoders.remote.credentials import key_name
from pipeline.exceptions import ConfigError, ModelError

SAID_CHARACTERS = 200
_ABOUT_TEXTS = (400, 413, 422)
_ABOUT_RIGHTS = (401, 403)
_PASSING = (408, 409, 425, 429)
_UNPAID = "insufficient_quota"
"""OpenAI's code, under status 429, for an account without money: no waiting helps."""


class RefusedError(Exception):
    """The API refuses a request as it is, because of one text in it or of all of them together."""


class TransientError(Exception):
    """Worth another try."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An answer without vectors; `said` and `code` are the API's own words, short and without the key."""

    url: str
    status: int
    said: str
    code: str | None

    @property
    def puts_off(self) -> bool:
        """Whether it may say for how long to wait."""
        return self.status in (429, 503) and self.code != _UNPAID

    def as_error(self, remote: RemoteConfig, model: str) -> Exception:
        """Return what is to be raised for it."""
        answer = f"{self.status} {self.said}".strip()
        if self.status in _ABOUT_TEXTS:
            return RefusedError(answer)
        if self.status in _ABOUT_RIGHTS:
            # what it says may hold a part of the key
            known = remote.api_key_env or remote.api_key_file
            advice = "give another one" if known else "name one by api_key_env or api_key_file"
            reason = f"{self.url} refuses the key, or this key the model {model!r} ({self.status}); {advice}"
            return ConfigError(key_name(remote), reason)
        if self.code == _UNPAID or self.status == 402:
            return ModelError(model, f"the account at {self.url} is used up ({answer}); pay, and run again")
        if self.status in _PASSING or self.status >= 500:
            return TransientError(answer)
        return ModelError(model, f"{self.url} answers {answer}; check encoder.model and encoder.remote.base_url")


def read_failure(url: str, status: int, content: bytes, key: str | None) -> Failure:
    """Read what an API says of a request it does not fulfil.

    OpenAI and vLLM send `{"error": {"message", "code"}}`, others `{"error": text}`, `{"message"}`, `{"detail"}`, text.
    """
    code = None
    try:
        found = json.loads(content)
        if isinstance(found, dict):
            found = next((found[name] for name in ("error", "message", "detail") if name in found), found)
        if isinstance(found, dict):
            code, found = found.get("code"), found.get("message", found)
    except ValueError:
        found = content[: 4 * SAID_CHARACTERS].decode(errors="replace")
    said = redacted(found if isinstance(found, str) else json.dumps(found), key)
    return Failure(url=url, status=status, said=said, code=code if isinstance(code, str) else None)


def redacted(text: str, key: str | None) -> str:
    """Return a text on one line, without the key, and short."""
    if key:
        text = text.replace(key, "***")
    return " ".join(text.split())[:SAID_CHARACTERS]
