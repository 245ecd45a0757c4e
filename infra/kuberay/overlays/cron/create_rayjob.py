"""Create one day's RayJob from the suspended RayJob that is its template.

The standard library alone, so that any Python image runs it. A day's RayJob has a fixed name: creating it again is
refused by Kubernetes and counts as done here.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

MOUNTED = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT_S = 30


class ApiError(Exception):
    """Kubernetes answered with something else than what was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """RayJobs of one namespace."""

    host: str
    port: int
    namespace: str
    token: str
    tls: ssl.SSLContext | None

    def request(self, method: str, name: str = "", body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Return the status and the object of one request."""
        if self.tls is None:
            connection = HTTPConnection(self.host, self.port, timeout=TIMEOUT_S)
        else:
            connection = HTTPSConnection(self.host, self.port, timeout=TIMEOUT_S, context=self.tls)
        try:
            connection.request(
                method,
                f"/apis/ray.io/v1/namespaces/{self.namespace}/rayjobs{name and '/' + name}",
                body=json.dumps(body) if body else None,
                headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
            )
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()


def mounted_api(namespace: str) -> Api:
    """Return the API of the cluster this pod runs in, as the pod's service account."""
    return Api(
        host=os.environ["KUBERNETES_SERVICE_HOST"],
        port=int(os.environ["KUBERNETES_SERVICE_PORT"]),
        namespace=namespace,
        token=(MOUNTED / "token").read_text(),
        tls=ssl.create_default_context(cafile=str(MOUNTED / "ca.crt")),
    )


def days_rayjob(template: dict[str, Any], day: date, owner: dict[str, Any] | None) -> dict[str, Any]:
    """Return the RayJob of a day: the template's, running, with the day in its name and for `{ds}`.

    With an owner, Kubernetes deletes the RayJob together with the Job that created it.
    """
    spec = {key: value for key, value in template["spec"].items() if key != "suspend"}
    spec["entrypoint"] = spec["entrypoint"].replace("{ds}", day.isoformat())
    metadata = {
        "name": f"{template['metadata']['name']}-{day:%Y%m%d}",
        "labels": {**template["metadata"].get("labels", {}), "embatch/ds": day.isoformat()},
        "ownerReferences": [owner] if owner else [],
    }
    return {"apiVersion": template["apiVersion"], "kind": template["kind"], "metadata": metadata, "spec": spec}


def create(api: Api, template: str, day: date, owner: dict[str, Any] | None) -> str:
    """Create the day's RayJob unless it is there, and say what was done.

    Raises:
        ApiError: the template cannot be read or the RayJob cannot be created.
    """
    status, found = api.request("GET", template)
    if status != 200:
        raise ApiError(f"cannot read the template {template!r}: {status} {found.get('message')}")
    job = days_rayjob(found, day, owner)
    status, answer = api.request("POST", body=job)
    if status == 409:
        return f"{job['metadata']['name']} is there already"
    if status != 201:
        raise ApiError(f"cannot create {job['metadata']['name']!r}: {status} {answer.get('message')}")
    return f"created {job['metadata']['name']}"


def main() -> None:
    """Create the RayJob of the day in `DS`, else of yesterday in UTC; exit 1 where that fails."""
    day = date.fromisoformat(os.environ["DS"]) if "DS" in os.environ else datetime.now(UTC).date() - timedelta(days=1)
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": os.environ["JOB_NAME"],
        "uid": os.environ["JOB_UID"],
    }
    try:
        print(create(mounted_api(os.environ["NAMESPACE"]), sys.argv[1], day, owner))
    except (ApiError, OSError, HTTPException, ValueError) as error:
        sys.exit(f"embatch-nightly: {error}")


if __name__ == "__main__":
    main()
