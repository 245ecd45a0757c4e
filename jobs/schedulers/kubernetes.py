"""RayJobs of a Kubernetes namespace, through its API: as a pod's service account, or behind `kubectl proxy`.

The standard library alone, so that any Python runs it.
"""

from __future__ import annotations

import json
import os
import ssl
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

MOUNTED = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT_S = 30

RayJob = dict[str, Any]


class ApiError(Exception):
    """Kubernetes answered with something else than what was asked for."""


class NoAnswerError(Exception):
    """Kubernetes did not answer, or with a fault of its own: worth asking again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """RayJobs of one namespace; the token's file is read for each request, as Kubernetes replaces it."""

    host: str
    port: int
    namespace: str
    token: Path | None = None
    tls: ssl.SSLContext | None = None

    def get(self, name: str) -> RayJob | None:
        """Return a RayJob, or None where there is none of that name."""
        status, found = self._request("GET", f"/{name}")
        if status == 404:
            return None
        return _expect(200, status, found, f"read the RayJob {name!r}")

    def create(self, job: RayJob) -> bool:
        """Create a RayJob; return False where its name is taken."""
        status, answer = self._request("POST", body=job)
        if status == 409:
            return False
        _expect(201, status, answer, f"create the RayJob {job['metadata']['name']!r}")
        return True

    def suspend(self, name: str) -> None:
        """Have KubeRay take a RayJob's cluster down, its driver with SIGTERM first."""
        status, answer = self._request("PATCH", f"/{name}", {"spec": {"suspend": True}})
        _expect(200, status, answer, f"suspend the RayJob {name!r}")

    def _request(self, method: str, name: str = "", body: RayJob | None = None) -> tuple[int, RayJob]:
        kind = "merge-patch+json" if method == "PATCH" else "json"
        headers = {"Content-Type": f"application/{kind}"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token.read_text()}"
        path = f"/apis/ray.io/v1/namespaces/{self.namespace}/rayjobs{name}"
        connection = self._connect()
        try:
            connection.request(method, path, body=json.dumps(body) if body else None, headers=headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status >= 500:
                raise NoAnswerError(f"Kubernetes answered {answer.status}: {text[:200].decode(errors='replace')}")
            return answer.status, json.loads(text)
        except (OSError, HTTPException, ValueError) as error:
            raise NoAnswerError(f"Kubernetes at {self.host}:{self.port}: {error or type(error).__name__}") from error
        finally:
            connection.close()

    def _connect(self) -> HTTPConnection:
        if self.tls is None:
            return HTTPConnection(self.host, self.port, timeout=TIMEOUT_S)
        return HTTPSConnection(self.host, self.port, timeout=TIMEOUT_S, context=self.tls)


def _expect(wanted: int, status: int, answer: RayJob, what: str) -> RayJob:
    if status != wanted:
        raise ApiError(f"cannot {what}: {status} {answer.get('message')}")
    return answer


def pods_api(namespace: str | None) -> Api:
    """Return the API of the cluster this pod runs in, as the pod's service account; its own namespace unless told.

    Raises:
        ApiError: this is no pod with a service account's token.
    """
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if not (host and port and (MOUNTED / "token").exists()):
        raise ApiError("this is no pod with a service account's token: give --server and --namespace")
    return Api(
        host=host,
        port=int(port),
        namespace=namespace or (MOUNTED / "namespace").read_text(),
        token=MOUNTED / "token",
        tls=ssl.create_default_context(cafile=str(MOUNTED / "ca.crt")),
    )


def proxied_api(server: str, namespace: str) -> Api:
    """Return the API behind `kubectl proxy`, such as http://127.0.0.1:8001."""
    address = urlsplit(server)
    return Api(host=address.hostname or server, port=address.port or 80, namespace=namespace)
