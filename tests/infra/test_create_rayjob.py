"""The CronJob's script against a Kubernetes API that is a real HTTP server on loopback."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from samples import ROOT

SCRIPT = ROOT / "infra/kuberay/overlays/cron/create_rayjob.py"
ENTRYPOINT = "embatch run /etc/embatch/job.yaml --set input.uri=s3://corpora/docs/dt={ds}/"
OWNER = {"apiVersion": "batch/v1", "kind": "Job", "name": "embatch-nightly-29404980", "uid": "0b5c"}
PATH = "/apis/ray.io/v1/namespaces/vectors/rayjobs"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("create_rayjob", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["create_rayjob"] = module
    spec.loader.exec_module(module)
    return module


class Kubernetes(BaseHTTPRequestHandler):
    """RayJobs of one namespace: kept by name, created once, for the holder of one token."""

    def do_GET(self):
        self._answer(lambda name, _body: (200, self.server.jobs[name]) if name in self.server.jobs else (404, {}))

    def do_POST(self):
        self._answer(self._create)

    def _create(self, _name, body):
        name = body["metadata"]["name"]
        if name in self.server.jobs:
            return 409, {"message": f"{name} already exists"}
        self.server.jobs[name] = body
        return 201, body

    def _answer(self, act):
        base, _, name = self.path.removeprefix(PATH).partition("/")
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"]))) if self.command == "POST" else None
        status, answer = 403, {"message": "forbidden"}
        if self.path.startswith(PATH) and not base and self.headers["Authorization"] == "Bearer right":
            status, answer = act(name, body)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def kubernetes():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Kubernetes)
    spec = {"suspend": True, "entrypoint": ENTRYPOINT, "backoffLimit": 2}
    metadata = {"name": "embatch", "labels": {"app.kubernetes.io/part-of": "embatch"}, "resourceVersion": "7"}
    server.jobs = {"embatch": {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": spec}}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def api(script, kubernetes):
    host, port = kubernetes.server_address
    return script.Api(host=host, port=port, namespace="vectors", token="right", tls=None)


def test_a_days_rayjob_is_the_template_with_the_day_in_it(script, api, kubernetes):
    assert script.create(api, "embatch", date(2026, 11, 24), OWNER) == "created embatch-20261124"
    assert kubernetes.jobs["embatch-20261124"] == {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {
            "name": "embatch-20261124",
            "labels": {"app.kubernetes.io/part-of": "embatch", "embatch/ds": "2026-11-24"},
            "ownerReferences": [OWNER],
        },
        "spec": {"entrypoint": ENTRYPOINT.replace("{ds}", "2026-11-24"), "backoffLimit": 2},
    }


def test_a_day_is_created_once(script, api, kubernetes):
    script.create(api, "embatch", date(2026, 11, 24), None)
    before = dict(kubernetes.jobs)
    assert script.create(api, "embatch", date(2026, 11, 24), None) == "embatch-20261124 is there already"
    assert kubernetes.jobs == before


def test_an_account_without_rights_says_so(script, api, kubernetes):
    wrong = script.Api(host=api.host, port=api.port, namespace="vectors", token="wrong", tls=None)
    with pytest.raises(script.ApiError, match="cannot read the template 'embatch': 403 forbidden"):
        script.create(wrong, "embatch", date(2026, 11, 24), None)
    assert set(kubernetes.jobs) == {"embatch"}


def test_the_script_ends_with_1_where_kubernetes_is_not_reached(script, monkeypatch, tmp_path, kubernetes):
    monkeypatch.setattr(script, "MOUNTED", tmp_path)
    for name, value in {"NAMESPACE": "vectors", "JOB_NAME": "job", "JOB_UID": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(kubernetes.server_address[1]))
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "embatch"])
    with pytest.raises(SystemExit, match="embatch-nightly: "):
        script.main()
