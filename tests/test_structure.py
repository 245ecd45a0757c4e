"""The layers hold: imports point down, and heavy packages stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = (
    {"exceptions"},
    {
        *("records", "schema", "fingerprint", "recall", "telemetry", "failpoints", "logs", "token_lengths", "wording"),
    },
    {"config", "calibration"},
    {"storage", "stopping"},
    {"corpus", "encoders", "shard"},
    {"checkpoint", "sampling", "course"},
    {"plan"},
    {"ray_data"},
    {"embeddings", "status", "clean", "audit", "report", "tracking", "planning", "doctor", "page"},
    {"job", "dry_run"},
)
HEAVY = {
    "ray": {"pipeline/ray_data", "jobs/submission"},
    "torch": {"pipeline/encoders"},
    "transformers": {"pipeline/encoders"},
    "triton": {"pipeline/encoders/packed/cuda.py", "pipeline/encoders/packed/triton_kernels.py"},
    "typer": {"jobs"},
    "rich": {"jobs"},
    "pydantic": {"pipeline/config"},
    "jinja2": {"pipeline/page"},
    "httpx2": {"pipeline/encoders/remote"},
}
SOURCES = sorted(
    path.relative_to(ROOT).as_posix() for folder in ("pipeline", "jobs") for path in (ROOT / folder).rglob("*.py")
)


def imports(source: str) -> set[str]:
    """Every module a file imports, also inside functions and for types."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / source).read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}: relative import"
            found |= {f"{node.module}.{name.name}" for name in node.names} | {node.module or ""}
    return found


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "pipeline" and len(parts) > 1 else None


def level(name: str) -> int:
    return next(number for number, rooms in enumerate(LAYERS) if name in rooms)


@pytest.mark.parametrize("source", [source for source in SOURCES if source.startswith("pipeline/")])
def test_imports_point_down(source):
    own = Path(source).with_suffix("").parts[1]
    if own == "__init__":
        return
    known = set().union(*LAYERS)
    assert own in known, f"{own} has no layer yet"
    for target in {room(module) for module in imports(source)} & known:
        assert target == own or level(target) < level(own), f"{source} imports {target}"


@pytest.mark.parametrize("source", SOURCES)
def test_heavy_packages_stay_in_their_rooms(source):
    for module in imports(source):
        allowed = HEAVY.get(module.split(".")[0])
        assert allowed is None or any(source.startswith(place) for place in allowed), f"{source} imports {module}"


def test_library_never_imports_the_edge():
    assert not [source for source in SOURCES if source.startswith("pipeline/") and "jobs" in imports(source)]


def test_the_audit_shares_nothing_with_the_writer():
    shared = {room(module) for source in SOURCES if source.startswith("pipeline/audit/") for module in imports(source)}
    assert shared.isdisjoint({"corpus", "shard", "checkpoint", "encoders", "ray_data"})


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("pipeline", ("ray", "torch", "pyarrow", "pydantic")),
        ("pipeline.plan", ("ray", "torch", "transformers")),
        ("pipeline.checkpoint.commits", ("ray", "torch", "botocore")),
        ("pipeline.encoders.registry", ("torch", "transformers", "tokenizers", "httpx2")),
        ("pipeline.encoders.remote.encoder", ("torch", "transformers", "tokenizers")),
        ("pipeline.encoders.packed.building", ("triton", "transformers")),
        ("pipeline.ray_data.reading", ("torch", "transformers")),
        ("jobs.cli", ("ray", "torch", "transformers", "pandas")),
        ("pipeline.job", ("pipeline.doctor", "packaging", "jinja2")),
    ],
)
def test_import_is_light(module, absent):
    code = f"import sys, {module}; print([name for name in {absent!r} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert loaded.stdout.strip() == "[]"


def test_public_names_are_not_hidden_by_modules():
    code = "import pipeline; [getattr(pipeline, name) for name in pipeline.__all__ * 2]; print(*("
    code += "name for name in pipeline.__all__ if isinstance(getattr(pipeline, name), type(pipeline))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""
