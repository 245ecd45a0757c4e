"""KubeRay's own rules for RayJob and RayCluster, as its operator applies them after the API server took the object.

They are those of `validation.go` in KubeRay 1.7 that concern what `infra/` uses, and the keys of the upper levels, so
that a misspelt one is found without the CRD.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

Json = dict[str, Any]

DNS_1035 = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
NAME_LENGTHS = {"RayJob": 47, "RayCluster": 53, "RayCronJob": 36, "CronJob": 52}
NEVER = ("", "Never")
START_RESOURCES = {"num-cpus", "num-gpus", "memory", "resources"}
PRIORITY_SINCE = (2, 56)
TOKENS_SINCE = (2, 52)
JOB_KEYS = (
    "activeDeadlineSeconds backoffLimit clusterSelector deletionStrategy entrypoint entrypointNumCpus "
    "entrypointNumGpus entrypointResources jobId managedBy metadata preRunningDeadlineSeconds rayClusterSpec "
    "runtimeEnvYAML shutdownAfterJobFinishes submissionMode submitterConfig submitterPodTemplate suspend "
    "ttlSecondsAfterFinished"
)
CLUSTER_KEYS = (
    "authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions headGroupSpec "
    "headServiceAnnotations historyServerOptions managedBy networkPolicy rayVersion suspend tlsOptions "
    "upgradeStrategy workerGroupSpecs"
)
HEAD_KEYS = "enableIngress headService ingressOptions labels rayStartParams resources serviceType template"
GROUP_KEYS = (
    "groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts priority rayStartParams replicas "
    "resources scaleStrategy suspend template"
)
AUTOSCALER_KEYS = (
    "args command env envFrom idleTimeoutSeconds image imagePullPolicy resources securityContext upscalingMode "
    "version volumeMounts"
)


def name_findings(kind: str, name: str) -> list[str]:
    """Return what is wrong with the name of an object that KubeRay or the CronJob controller builds others from."""
    longest = NAME_LENGTHS.get(kind)
    found = []
    if longest is not None and len(name) > longest:
        found.append(f"name of {len(name)} characters, at most {longest}")
    if kind.startswith("Ray") and not DNS_1035.match(name):
        found.append(f"name {name!r} is no DNS-1035 label")
    return found


def job_findings(spec: Json) -> list[str]:
    """Return what KubeRay would refuse in the specification of a RayJob, or silently not do."""
    found = _unknown("spec", spec, JOB_KEYS)
    shuts_down, ttl = spec.get("shutdownAfterJobFinishes", False), spec.get("ttlSecondsAfterFinished", 0)
    if ttl < 0:
        found.append("ttlSecondsAfterFinished is negative")
    if ttl and not shuts_down:
        found.append("ttlSecondsAfterFinished without shutdownAfterJobFinishes")
    if spec.get("suspend") and not shuts_down:
        found.append("suspend without shutdownAfterJobFinishes")
    if shuts_down and spec.get("deletionStrategy", {}).get("deletionRules"):
        found.append("deletionRules with shutdownAfterJobFinishes")
    for key in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if spec.get(key, 1) <= 0:
            found.append(f"{key} is not positive")
    if spec.get("backoffLimit", 0) < 0:
        found.append("backoffLimit is negative")
    return found + _mode_findings(spec)


def _mode_findings(spec: Json) -> list[str]:
    mode, selected = spec.get("submissionMode", "K8sJobMode"), spec.get("clusterSelector")
    found = []
    if not selected and "rayClusterSpec" not in spec:
        found.append("neither rayClusterSpec nor clusterSelector")
    if spec.get("backoffLimit", 0) > 0 and (selected or mode == "InteractiveMode"):
        found.append("backoffLimit needs a RayCluster of the job's own, and a submitter")
    if selected and (spec.get("suspend") or mode == "SidecarMode"):
        found.append("clusterSelector with suspend or SidecarMode")
    if mode == "SidecarMode":
        found += [f"SidecarMode with {key}" for key in ("submitterPodTemplate", "submitterConfig") if key in spec]
    return found


def cluster_findings(spec: Json) -> list[str]:
    """Return what KubeRay would refuse in the specification of a RayCluster, or what leaves its ports open."""
    found = _unknown("rayClusterSpec", spec, CLUSTER_KEYS)
    head, groups = spec["headGroupSpec"], spec.get("workerGroupSpecs", [])
    found += _unknown("headGroupSpec", head, HEAD_KEYS)
    found += _unknown("autoscalerOptions", spec.get("autoscalerOptions", {}), AUTOSCALER_KEYS)
    autoscaling = spec.get("enableInTreeAutoscaling", False)
    v2 = spec.get("autoscalerOptions", {}).get("version") == "v2"
    version = tuple(int(part) for part in spec.get("rayVersion", "0.0").split(".")[:2])
    if spec.get("authOptions", {}).get("mode") != "token":
        found.append("authOptions.mode is not token")
    if version < TOKENS_SINCE:
        found.append("rayVersion is too old for token authentication")
    found += _start_findings("head", head)
    names = [group.get("groupName", "") for group in groups]
    if len(set(names)) < len(names):
        found.append("two worker groups of one name")
    if not any(group.get("minReplicas", 0) for group in groups):
        found.append("no worker at the start: embatch would find no CPU")
    for group in groups:
        name = group.get("groupName", "")
        found += _unknown(f"worker group {name}", group, GROUP_KEYS) + _start_findings(name, group)
        found += [f"{name}: {line}" for line in _size_findings(group, autoscaling=autoscaling)]
        if group.get("priority") and not (autoscaling and v2 and version >= PRIORITY_SINCE):
            found.append(f"{name}: priority needs autoscaler v2 and Ray 2.56")
    if autoscaling and v2:
        policies = [group["template"]["spec"].get("restartPolicy", "") for group in [head, *groups]]
        found += ["autoscaler v2 with a restartPolicy"] * any(policy not in NEVER for policy in policies)
    return found


def _start_findings(name: str, group: Json) -> list[str]:
    given = group.get("rayStartParams", {})
    found = [
        f"{name}: rayStartParams {key!r} is no string" for key, value in given.items() if not isinstance(value, str)
    ]
    if START_RESOURCES & set(given) and group.get("resources"):
        found.append(f"{name}: resources in both rayStartParams and resources")
    if "labels" in given:
        found.append(f"{name}: labels in rayStartParams")
    return found


def _size_findings(group: Json, *, autoscaling: bool) -> list[str]:
    missing = [key for key in ("minReplicas", "maxReplicas") if key not in group]
    if missing:
        return [f"{key} is missing" for key in missing]
    least, size, most = group["minReplicas"], group.get("replicas", group["minReplicas"]), group["maxReplicas"]
    found = (
        [] if all(low <= high for low, high in pairwise((0, least, size, most))) else ["replicas out of their range"]
    )
    if not autoscaling and most != size:
        found.append("maxReplicas above replicas, and nothing that scales")
    return found


def _unknown(place: str, given: Json, known: str) -> list[str]:
    return [f"{place}: unknown key {key!r}" for key in sorted(set(given) - set(known.split()))]
