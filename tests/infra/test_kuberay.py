"""Each overlay renders, keeps KubeRay's rules and ours, and says what the job, the lock and the image say."""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml
from infra.crd_schema import validators
from infra.manifests import findings, render
from infra.pod_rules import pods
from samples import ROOT

from pipeline.config import parse_job

KUBERAY = ROOT / "infra/kuberay"
OVERLAYS = sorted(path.name for path in (KUBERAY / "overlays").iterdir())
CRDS = os.environ.get("EMBATCH_KUBERAY_CRDS")

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


@pytest.fixture(params=OVERLAYS)
def objects(request):
    return render(KUBERAY / "overlays" / request.param)


@pytest.fixture
def overlay():
    return {name: {found["kind"]: found for found in render(KUBERAY / "overlays" / name)} for name in OVERLAYS}


def rayjob(objects):
    return next(found for found in objects if found["kind"] == "RayJob")


def test_an_overlay_breaks_no_rule(objects):
    assert findings(objects) == []


@pytest.mark.skipif(CRDS is None, reason="EMBATCH_KUBERAY_CRDS names no folder with KubeRay's CRDs")
def test_an_overlay_fits_the_crds(objects):
    known = validators(Path(CRDS))
    job = rayjob(objects)
    errors = known[job["apiVersion"], job["kind"]].iter_errors(job)
    assert [f"{error.json_path}: {error.message}" for error in errors] == []


def test_core_kinds_fit_kubernetes(objects):
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed").validate
    for found in objects:
        if "ray.io" not in found["apiVersion"]:
            validate(found, "1.32", strict=True)


@pytest.mark.skipif(CRDS is None, reason="EMBATCH_KUBERAY_CRDS names no folder with KubeRay's CRDs")
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.rayClusterSpec.headGroupSpec.template.spec.containers.0.ressources", {}),
        ("spec.rayClusterSpec.workerGroupSpecs.0.maxReplicas", "4"),
        ("spec.rayClusterSpec.authOptions.mode", "password"),
        ("spec.backofLimit", 2),
        ("spec.rayClusterSpec.workerGroupSpecs.0.template.spec.tolerations", {"key": "nvidia.com/gpu"}),
    ],
)
def test_the_crds_refuse(path, value):
    job = rayjob(render(KUBERAY / "overlays/gpu"))
    *way, last = path.split(".")
    place = job
    for step in way:
        place = place[int(step) if step.isdigit() else step]
    place[last] = value
    assert not validators(Path(CRDS))[job["apiVersion"], job["kind"]].is_valid(job)


def test_ray_is_the_locks(objects):
    locked = re.search(r"^ray==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert rayjob(objects)["spec"]["rayClusterSpec"]["rayVersion"] == locked[1]


def test_images_are_this_versions(objects):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = {container["image"] for found in objects for pod in pods(found) for container in pod["containers"]}
    assert len(images) == 1
    assert images <= {f"embatch:{version}-cpu", f"embatch:{version}-gpu"}


def test_the_job_file_is_one_that_runs_anywhere(objects):
    text = next(found for found in objects if found["metadata"]["name"].startswith("embatch-job"))["data"]["job.yaml"]
    job = parse_job(yaml.safe_load(text))
    assert job.cluster == type(job.cluster)()


def test_the_entrypoint_is_a_job_embatch_takes(objects):
    words = rayjob(objects)["spec"]["entrypoint"].split()
    assert words[:3] == ["embatch", "run", "/etc/embatch/job.yaml"]
    assert words[3::2] == ["--set"] * (len(words[3:]) // 2)
    job = yaml.safe_load((KUBERAY / "base/job.yaml").read_text())
    for key, value in (word.split("=", 1) for word in words[4::2]):
        section, name = key.split(".")
        job.setdefault(section, {})[name] = yaml.safe_load(value)
    assert parse_job(job).cluster.device in ("cpu", "cuda")


@pytest.mark.parametrize(("name", "device"), [("dev-cpu", "cpu"), ("gpu", "cuda"), ("gpu-spot", "cuda")])
def test_an_overlay_asks_for_the_devices_it_has(overlay, name, device):
    job = overlay[name]["RayJob"]["spec"]
    limits = [
        pod["containers"][0]["resources"]["limits"]
        for group in job["rayClusterSpec"]["workerGroupSpecs"]
        for pod in pods(group)
    ]
    assert f"cluster.device={device}" in job["entrypoint"]
    assert {limit.get("nvidia.com/gpu") for limit in limits} == {1 if device == "cuda" else None}


def test_spot_machines_come_before_others_and_are_left_in_time(overlay):
    cluster = overlay["gpu-spot"]["RayJob"]["spec"]["rayClusterSpec"]
    first, *others = sorted(cluster["workerGroupSpecs"], key=lambda group: -group.get("priority", 0))
    assert first["groupName"] == "gpu-spot"
    assert first["template"]["spec"]["terminationGracePeriodSeconds"] <= 25
    assert [group["minReplicas"] for group in others] == [1]
    assert f"cluster.replicas={first['maxReplicas']}" in overlay["gpu-spot"]["RayJob"]["spec"]["entrypoint"]


def test_only_an_autoscaler_and_the_creator_hold_a_token(overlay):
    holders = {
        (name, pod["containers"][0]["name"])
        for name, objects in overlay.items()
        for found in objects.values()
        for pod in pods(found)
        if pod["automountServiceAccountToken"]
    }
    assert holders == {("gpu-spot", "ray-head"), ("cron", "create")}


def test_the_creator_may_read_its_template_and_create_no_more(overlay):
    cron = overlay["cron"]
    assert [(rule["verbs"], rule.get("resourceNames")) for rule in cron["Role"]["rules"]] == [
        (["create"], None),
        (["get"], [cron["RayJob"]["metadata"]["name"]]),
    ]
    assert {resource for rule in cron["Role"]["rules"] for resource in rule["resources"]} == {"rayjobs"}
    assert cron["RayJob"]["spec"]["suspend"] is True
