"""What every pod of `infra/` keeps to: pinned image, no root, no privileges, no secrets, limits, mounts that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSWORD|ACCESS_KEY", re.IGNORECASE)
PINNED = re.compile(r"^[\w./-]+(:\d+/[\w./-]+)?(:(?!latest)[\w.-]+|@sha256:[0-9a-f]{64})$")
SECONDS = re.compile(r"(?:sleep |timeout |--grace-period |second < )(\d+)")


def pods(node: Any) -> Iterator[Json]:
    """Yield every pod specification of an object, however deep, and whatever its kind."""
    if isinstance(node, dict):
        if isinstance(node.get("containers"), list):
            yield node
        for value in node.values():
            yield from pods(value)
    elif isinstance(node, list):
        for value in node:
            yield from pods(value)


def pod_findings(pod: Json) -> list[str]:
    """Return what is wrong with a pod, one line each."""
    found = [f"{key} is set" for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    found += [f"volume {volume['name']!r} is a hostPath" for volume in pod.get("volumes", []) if "hostPath" in volume]
    if "automountServiceAccountToken" not in pod:
        found.append("automountServiceAccountToken is not said")
    if not pod.get("serviceAccountName"):
        found.append("runs as the default service account")
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    for container in pod.get("initContainers", []) + pod["containers"]:
        name = container["name"]
        found += [f"{name}: {line}" for line in container_findings(container, pod.get("securityContext", {}))]
        found += [
            f"{name}: mounts {mount['name']!r}, which is no volume"
            for mount in container.get("volumeMounts", [])
            if mount["name"] not in volumes
        ]
        found += [f"{name}: {line}" for line in _stop_findings(container, pod.get("terminationGracePeriodSeconds", 30))]
    return found


def container_findings(container: Json, shared: Json) -> list[str]:
    """Return what is wrong with a container, whose pod's security context is `shared`."""
    found = []
    image = container.get("image", "")
    if not PINNED.match(image):
        found.append(f"image {image!r} has no exact tag or digest")
    context = {**shared, **container.get("securityContext", {})}
    if context.get("runAsNonRoot") is not True or context.get("runAsUser", 0) == 0:
        found.append("may run as root")
    if context.get("privileged"):
        found.append("is privileged")
    if context.get("allowPrivilegeEscalation") is not False:
        found.append("may gain privileges")
    if context.get("capabilities") != {"drop": ["ALL"]}:
        found.append("keeps capabilities")
    if context.get("readOnlyRootFilesystem") is not True:
        found.append("can write to its root")
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        found.append("has no seccomp profile")
    found += [
        f"{variable['name']} has a literal value"
        for variable in container.get("env", [])
        if SECRET_NAME.search(variable["name"]) and "value" in variable
    ]
    resources = container.get("resources", {})
    if "memory" not in resources.get("limits", {}):
        found.append("has no memory limit")
    if not {"cpu", "memory"} <= set(resources.get("requests", {})):
        found.append("requests no cpu or no memory")
    return found


def _stop_findings(container: Json, grace_s: int) -> list[str]:
    command = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
    waits = [int(seconds) for seconds in SECONDS.findall(" ".join(command)) if seconds != "1"]
    return [f"preStop takes {sum(waits)} s of {grace_s} s"] if sum(waits) >= grace_s else []
