"""Write the job file's reference from the configuration itself: `python -m jobs.reference > docs/job-file.md`."""

from __future__ import annotations

import json
from typing import Any

from pipeline.config import JobConfig, RemoteConfig, Section

HEADER = """# The job file

One YAML file describes one job; the same file goes unchanged from a laptop to a cluster. This page is written
from the configuration model (`make docs`). Any key can be overridden with `--set section.key=value`, and
`embatch config show JOB.yaml` prints a job with every default filled in.

```yaml
# yaml-language-server: $schema=jobs/schema/job-v1.schema.json
version: 1
name: msdocs-minilm
input:
  uri: s3://corpora/msdocs/
  text: "{title}\\n{body}"
  id: doc_id
  keep: [section, dt]
encoder:
  model: thenlper/gte-small
output:
  uri: s3://embeddings/msdocs/
```

A job that runs once a day has `{ds}` where its days differ, in `input.uri`, `output.uri` and `name`, and nowhere else
(in `input.text` braces name columns):

```yaml
name: docs-{ds}
input:
  uri: s3://corpora/docs/dt={ds}/
output:
  uri: s3://embeddings/docs/dt={ds}/
```

`embatch run job.yaml --ds 2026-11-24` puts the day there before the job is checked, so that the plan records the
places themselves. `{ds}` without `--ds` is refused, and so is `--ds` without `{ds}` (exit 2). More on
[schedulers](schedulers.md).

CSV and TSV files that have a header and quote as RFC 4180 says need no words. Others do; this is MS MARCO's
`collection.tsv`, without either:

```yaml
input:
  uri: s3://corpora/msmarco/collection.tsv
  csv:
    quoting: none
    header: [id, text]
```

Unknown keys are refused with their path and the nearest valid key. Files above 1 MiB, duplicate keys, more than 16
YAML aliases and Python tags are refused. Credentials never stand in a job file or a URI: set them in the
environment (for S3 the usual AWS variables, roles or files; `AWS_ENDPOINT_URL` for other stores).

What is marked *identity* changes the output: it is fixed in the output's plan, and a run with another value is
refused (exit 4).
"""
_HOW_TO_ASK = RemoteConfig.model_fields.keys() - {"base_url", "service", "reply_model", "dimensions", "max_chars"}
NOT_IDENTITY = ("name", "output.uri", "limits", "cluster", *(f"encoder.remote.{key}" for key in _HOW_TO_ASK))
NESTED = {
    "input.csv": "CsvConfig",
    "encoder.prompt": "PromptConfig",
    "encoder.remote": "RemoteConfig",
    "cluster.replicas": "ReplicaRange",
}
"""Keys whose value is a mapping of its own."""


def reference() -> str:
    """Return the page as Markdown."""
    parts = [HEADER]
    top = [name for name, field in JobConfig.model_fields.items() if not _section(field.annotation)]
    parts.append(_table("The job", JobConfig, top, prefix=""))
    for name, field in JobConfig.model_fields.items():
        section = _section(field.annotation)
        if section:
            intro = f"## `{name}`\n\n{section.__doc__}\n"
            parts.append(intro + "\n" + _table("", section, list(section.model_fields), prefix=f"{name}."))
    for key, name in NESTED.items():
        section = _section_named(name)
        table = _table("", section, list(section.model_fields), prefix="", within=f"{key}.")
        parts.append(f"### `{key}`\n\n{section.__doc__}\n\n{table}")
    return "\n".join(parts)


def _table(title: str, model: type[Section], names: list[str], prefix: str, within: str = "") -> str:
    properties = JobConfig.model_json_schema()["$defs"].get(model.__name__) or JobConfig.model_json_schema()
    rows = ["| key | values | default | identity | meaning |", "| --- | --- | --- | --- | --- |"]
    for name in names:
        key = prefix + name
        schema = properties["properties"][name]
        identity = "" if (within + key).startswith(NOT_IDENTITY) else "yes"
        required = name in properties.get("required", ())
        default = "required" if required else f"`{json.dumps(schema.get('default'))}`"
        meaning = (model.model_fields[name].description or "").replace("\n", " ").replace("|", "\\|")
        rows.append(f"| `{key}` | {_values(schema)} | {default} | {identity} | {meaning} |")
    heading = f"## {title}\n\n" if title else ""
    return heading + "\n".join(rows) + "\n"


def _values(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        return " or ".join(_values(option) for option in options)
    if "$ref" in schema:
        return "see below"
    kind = str(schema["type"])
    return {"array": "list", "object": "mapping"}.get(kind, kind)


def _section(annotation: Any) -> type[Section] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def _section_named(name: str) -> type[Section]:
    return next(kind for kind in Section.__subclasses__() if kind.__name__ == name)


if __name__ == "__main__":
    print(reference(), end="")
