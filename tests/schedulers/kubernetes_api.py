"""What stands for Kubernetes and KubeRay in tests: a real HTTP server on loopback that keeps RayJobs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ENTRYPOINT = "embatch run /etc/embatch/job.yaml --set input.uri=s3://corpora/docs/dt={ds}/"
PATH = "/apis/ray.io/v1/namespaces/vectors/rayjobs"
SUCCEEDED = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED", "message": "Job finished successfully."}


def failed(code: int) -> dict[str, str]:
    """Return what KubeRay tells of a driver that ended with a code: Ray's message, as Ray words it."""
    message = f"Job entrypoint command failed with exit code {code}, last available logs (truncated to 20,000 chars):\n"
    return {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "message": message + "error: what it was\n"}


class Kubernetes(BaseHTTPRequestHandler):
    """RayJobs of one namespace: kept by name, created once, for the holder of one token.

    `server.course` has what KubeRay will say of a RayJob, one status a look; the last one stays.
    """

    def do_GET(self):
        self._answer(self._read)

    def do_POST(self):
        self._answer(self._create)

    def do_PATCH(self):
        self._answer(self._patch)

    def _read(self, name, _body):
        if name not in self.server.jobs:
            return 404, {}
        job, course = self.server.jobs[name], self.server.course.get(name, [])
        if course:
            job = {**job, "status": course.pop(0) if len(course) > 1 else course[0]}
            if job["status"] == "fault":
                return 503, {"message": "etcd is away"}
        return 200, job

    def _create(self, _name, body):
        name = body["metadata"]["name"]
        if name in self.server.jobs:
            return 409, {"message": f"{name} already exists"}
        self.server.jobs[name] = body
        return 201, body

    def _patch(self, name, body):
        assert self.headers["Content-Type"] == "application/merge-patch+json"
        self.server.jobs[name]["spec"] |= body["spec"]
        return 200, self.server.jobs[name]

    def _answer(self, act):
        base, _, name = self.path.removeprefix(PATH).partition("/")
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        status, answer = 403, {"message": "forbidden"}
        if self.path.startswith(PATH) and not base and self.headers["Authorization"] in self.server.accepted:
            status, answer = act(name, body)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_):
        pass


@contextmanager
def serve() -> Iterator[ThreadingHTTPServer]:
    """Serve a namespace with one suspended RayJob, the template."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Kubernetes)
    spec = {"suspend": True, "entrypoint": ENTRYPOINT, "backoffLimit": 2}
    metadata = {"name": "embatch", "labels": {"app.kubernetes.io/part-of": "embatch"}, "resourceVersion": "7"}
    server.jobs = {"embatch": {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": spec}}
    server.course, server.accepted = {}, {"Bearer right"}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
