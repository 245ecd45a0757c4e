"""Check the objects of one overlay, as kustomize renders them: each alone, and that their references hold."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from infra.pod_rules import pod_findings, pods
from infra.ray_rules import cluster_findings, job_findings, name_findings

Json = dict[str, Any]

API_VERSIONS = {
    "ConfigMap": "v1",
    "CronJob": "batch/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "RayJob": "ray.io/v1",
    "Role": "rbac.authorization.k8s.io/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1",
    "ServiceAccount": "v1",
}
WIDE_VERBS = {"*", "bind", "delete", "deletecollection", "escalate", "impersonate", "patch", "update"}
WIDE_RESOURCES = {"*", "pods/exec", "roles", "rolebindings", "secrets", "serviceaccounts/token"}


def render(folder: Path) -> list[Json]:
    """Return the objects that `kubectl kustomize` makes of a folder."""
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def findings(objects: list[Json]) -> list[str]:
    """Return everything that is wrong with the objects of one overlay, one line each."""
    return [
        f"{found['kind']} {found['metadata']['name']}: {line}" for found in objects for line in _alone(found)
    ] + list(_together(objects))


def _alone(found: Json) -> Iterator[str]:
    kind = found["kind"]
    if found["apiVersion"] != API_VERSIONS.get(kind):
        yield f"apiVersion {found['apiVersion']!r} is not known here"
    yield from name_findings(kind, found["metadata"]["name"])
    for pod in pods(found):
        yield from pod_findings(pod)
    if kind == "RayJob":
        yield from job_findings(found["spec"])
        yield from cluster_findings(found["spec"]["rayClusterSpec"])
    elif kind == "Role":
        for rule in found["rules"]:
            for word in sorted(WIDE_VERBS.intersection(rule["verbs"]) | WIDE_RESOURCES.intersection(rule["resources"])):
                yield f"grants {word!r}"
    elif kind == "ServiceAccount" and found.get("automountServiceAccountToken") is not False:
        yield "mounts its token in every pod"
    elif kind == "CronJob" and found["spec"].get("concurrencyPolicy") != "Forbid":
        yield "may overlap itself"


def _together(objects: list[Json]) -> Iterator[str]:
    names = {(found["kind"], found["metadata"]["name"]) for found in objects}
    for found in objects:
        place = f"{found['kind']} {found['metadata']['name']}"
        for kind, name in _references(found):
            if (kind, name) not in names:
                yield f"{place}: {kind} {name!r} is not there"
        for template in _templates(found):
            for policy in (other for other in objects if other["kind"] == "NetworkPolicy"):
                wanted = policy["spec"]["podSelector"]["matchLabels"].items()
                if not wanted <= template.get("metadata", {}).get("labels", {}).items():
                    yield f"{place}: a pod that NetworkPolicy {policy['metadata']['name']!r} does not cover"


def _references(found: Json) -> Iterator[tuple[str, str]]:
    for pod in pods(found):
        if "serviceAccountName" in pod:
            yield "ServiceAccount", pod["serviceAccountName"]
        for volume in pod.get("volumes", []):
            if "configMap" in volume:
                yield "ConfigMap", volume["configMap"]["name"]
    if found["kind"] == "RoleBinding":
        yield found["roleRef"]["kind"], found["roleRef"]["name"]
        for subject in found["subjects"]:
            yield subject["kind"], subject["name"]


def _templates(node: Any) -> Iterator[Json]:
    if isinstance(node, dict):
        if isinstance(node.get("spec"), dict) and isinstance(node["spec"].get("containers"), list):
            yield node
        for value in node.values():
            yield from _templates(value)
    elif isinstance(node, list):
        for value in node:
            yield from _templates(value)
