"""KubeRay's CRDs as strict JSON Schemas, for a check without a cluster.

The CRDs are not part of this repository: `EMBATCH_KUBERAY_CRDS` names a folder that has them
(`helm-chart/kuberay-operator/crds` of KubeRay).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator


@cache
def validators(folder: Path) -> dict[tuple[str, str], Draft202012Validator]:
    """Return a validator for each (apiVersion, kind) of the CRDs in a folder."""
    found = {}
    for path in sorted(folder.glob("*.yaml")):
        crd = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
        if crd.get("kind") != "CustomResourceDefinition":
            continue
        for version in crd["spec"]["versions"]:
            key = f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"]
            found[key] = Draft202012Validator(strict(version["schema"]["openAPIV3Schema"]))
    return found


def strict(schema: Any) -> Any:
    """Return a schema as the API server means it: unknown keys are errors, defaults fill in required ones."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: strict(value) for key, value in schema.items() if key != "properties"}
    if schema.get("x-kubernetes-int-or-string"):
        out.pop("type", None)
        out["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if isinstance(schema.get("properties"), dict):
        parts = schema["properties"]
        out["properties"] = {name: strict(part) for name, part in parts.items()}
        if "required" in schema:
            out["required"] = [name for name in schema["required"] if "default" not in parts.get(name, {})]
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            out.setdefault("additionalProperties", False)
    return out
