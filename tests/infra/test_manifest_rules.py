"""The rules find what is wrong: one deliberate mistake each, in an overlay that is right."""

from __future__ import annotations

import copy
import shutil

import pytest
from infra.manifests import findings, render
from samples import ROOT

HEAD = "spec.rayClusterSpec.headGroupSpec"
WORKERS = "spec.rayClusterSpec.workerGroupSpecs.0"
CONTAINER = "template.spec.containers.0"
DELETE = object()

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")

MISTAKES = [
    ("RayJob", "metadata.name", "e" * 48, "name of 48 characters, at most 47"),
    ("RayJob", "metadata.name", "2026-embatch", "is no DNS-1035 label"),
    ("RayJob", "apiVersion", "ray.io/v1alpha1", "is not known here"),
    ("RayJob", "spec.backofLimit", 2, "unknown key 'backofLimit'"),
    ("RayJob", f"{WORKERS}.replica", 2, "unknown key 'replica'"),
    ("RayJob", "spec.shutdownAfterJobFinishes", False, "ttlSecondsAfterFinished without shutdownAfterJobFinishes"),
    ("RayJob", "spec.shutdownAfterJobFinishes", False, "suspend without shutdownAfterJobFinishes"),
    ("RayJob", "spec.backoffLimit", -1, "backoffLimit is negative"),
    ("RayJob", "spec.submissionMode", "SidecarMode", "SidecarMode with submitterPodTemplate"),
    ("RayJob", "spec.deletionStrategy", {"deletionRules": [{}]}, "deletionRules with shutdownAfterJobFinishes"),
    ("RayJob", f"{HEAD}.resources", {"CPU": "0"}, "resources in both rayStartParams and resources"),
    ("RayJob", f"{HEAD}.rayStartParams.num-cpus", 0, "'num-cpus' is no string"),
    ("RayJob", f"{WORKERS}.rayStartParams.labels", "a=b", "labels in rayStartParams"),
    ("RayJob", f"{WORKERS}.priority", 1, "priority needs autoscaler v2"),
    ("RayJob", f"{WORKERS}.minReplicas", 5, "replicas out of their range"),
    ("RayJob", f"{WORKERS}.maxReplicas", 9, "nothing that scales"),
    ("RayJob", f"{WORKERS}.minReplicas", 0, "no worker at the start"),
    ("RayJob", "spec.rayClusterSpec.authOptions.mode", "disabled", "authOptions.mode is not token"),
    ("RayJob", "spec.rayClusterSpec.rayVersion", "2.51.0", "too old for token authentication"),
    ("RayJob", f"{WORKERS}.{CONTAINER}.image", "embatch", "has no exact tag"),
    ("RayJob", f"{WORKERS}.{CONTAINER}.image", "embatch:latest", "has no exact tag"),
    ("RayJob", f"{WORKERS}.template.spec.securityContext.runAsUser", 0, "may run as root"),
    ("RayJob", f"{WORKERS}.{CONTAINER}.securityContext.privileged", True, "is privileged"),
    ("RayJob", f"{WORKERS}.{CONTAINER}.securityContext.allowPrivilegeEscalation", True, "may gain privileges"),
    ("RayJob", f"{WORKERS}.{CONTAINER}.securityContext.capabilities", {"add": ["SYS_ADMIN"]}, "keeps capabilities"),
    ("RayJob", f"{WORKERS}.{CONTAINER}.securityContext.readOnlyRootFilesystem", DELETE, "can write to its root"),
    ("RayJob", f"{WORKERS}.template.spec.securityContext.seccompProfile", DELETE, "has no seccomp profile"),
    ("RayJob", f"{WORKERS}.{CONTAINER}.resources.limits", {"cpu": "8"}, "has no memory limit"),
    ("RayJob", f"{WORKERS}.{CONTAINER}.resources.requests", DELETE, "requests no cpu or no memory"),
    ("RayJob", f"{WORKERS}.template.spec.hostNetwork", True, "hostNetwork is set"),
    ("RayJob", f"{WORKERS}.template.spec.volumes.0", {"name": "tmp", "hostPath": {"path": "/"}}, "is a hostPath"),
    ("RayJob", f"{WORKERS}.template.spec.volumes.0.name", "temp", "mounts 'tmp', which is no volume"),
    ("RayJob", f"{WORKERS}.template.spec.automountServiceAccountToken", DELETE, "automountServiceAccountToken"),
    ("RayJob", f"{WORKERS}.template.spec.serviceAccountName", DELETE, "default service account"),
    ("RayJob", f"{WORKERS}.template.spec.serviceAccountName", "admin", "ServiceAccount 'admin' is not there"),
    ("RayJob", f"{WORKERS}.template.spec.terminationGracePeriodSeconds", 30, "preStop takes 55 s of 30 s"),
    ("RayJob", f"{WORKERS}.template.metadata.labels", {}, "'embatch' does not cover"),
    (
        "RayJob",
        f"{WORKERS}.{CONTAINER}.env.0",
        {"name": "AWS_SECRET_ACCESS_KEY", "value": "canary"},
        "AWS_SECRET_ACCESS_KEY has a literal value",
    ),
    ("RayJob", f"{HEAD}.template.spec.volumes.0.configMap.name", "embatch-job", "ConfigMap 'embatch-job' is not there"),
    ("Role", "rules.0.verbs", ["*"], "grants '*'"),
    ("Role", "rules.0.resources", ["rayjobs", "secrets"], "grants 'secrets'"),
    ("ServiceAccount", "automountServiceAccountToken", DELETE, "mounts its token in every pod"),
    ("RoleBinding", "subjects.0.name", "default", "ServiceAccount 'default' is not there"),
    ("CronJob", "spec.concurrencyPolicy", "Allow", "may overlap itself"),
    ("CronJob", "metadata.name", "e" * 53, "name of 53 characters, at most 52"),
]


@pytest.fixture(scope="module")
def right():
    return render(ROOT / "infra/kuberay/overlays/cron")


@pytest.fixture(scope="module")
def autoscaled():
    return render(ROOT / "infra/kuberay/overlays/gpu-spot")


def put(found, path, value):
    *way, last = (int(step) if step.isdigit() else step for step in path.split("."))
    for step in way:
        found = found[step]
    if value is DELETE:
        del found[last]
    else:
        found[last] = value


@pytest.mark.parametrize(("kind", "path", "value", "said"), MISTAKES, ids=[f"{m[0]}-{m[1]}-{m[3]}" for m in MISTAKES])
def test_a_mistake_is_found(right, kind, path, value, said):
    objects = copy.deepcopy(right)
    put(next(found for found in objects if found["kind"] == kind), path, value)
    assert any(said in line for line in findings(objects)), findings(objects)


def test_autoscaler_v2_with_a_restart_policy_is_found(autoscaled):
    objects = copy.deepcopy(autoscaled)
    job = next(found for found in objects if found["kind"] == "RayJob")
    put(job, f"{WORKERS}.template.spec.restartPolicy", "Always")
    assert [line for line in findings(objects) if "autoscaler v2 with a restartPolicy" in line]
