"""The layers hold: imports point down, and heavy packages stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
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
ENCODERS = (
    {"base", "files"},
    {"architecture", "tokens"},
    {"precision"},
    {"backends", "hashing", "forward"},
    {"packed", "remote"},
    {"registry"},
    {"isolating", "loading", "measuring"},
)
HEAVY = {
    "ray": {"pipeline/ray_data", "jobs/submission"},
    "torch": {"pipeline/encoders"},
    "transformers": {"pipeline/encoders/forward", "pipeline/encoders/packed"},
    "tokenizers": {"pipeline/encoders/tokens"},
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
MODULES = {source.removesuffix(".py").removesuffix("/__init__").replace("/", "."): source for source in SOURCES}
MOST_LINES = 299
MORE_LINES = {"pipeline/exceptions.py"}
"""One tree, read as one."""
MOST_LINES_OF_A_FUNCTION = 59


@cache
def nodes(source: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse((ROOT / source).read_text())))


@cache
def imports(source: str) -> set[str]:
    """Every module a file imports, also inside functions and for types."""
    found = set()
    for node in nodes(source):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}: relative import"
            names = {f"{node.module}.{name.name}" for name in node.names}
            found |= names if names <= MODULES.keys() else names | {node.module or ""}
    return found


def room(module: str, house: str = "pipeline") -> str | None:
    """The first name below `house` on the way to a module."""
    return module.removeprefix(f"{house}.").split(".")[0] if module.startswith(f"{house}.") else None


def require_order(layers: tuple[set[str], ...], house: str, source: str) -> None:
    """A file imports from its own room and those of lower layers only."""
    level = {name: number for number, names in enumerate(layers) for name in names}
    own = room(source.removesuffix(".py").replace("/", "."), house)
    if own == "__init__":
        return
    assert own in level, f"{own} has no layer yet"
    for target in {room(module, house) for module in imports(source)} & level.keys():
        assert target == own or level[target] < level[own], f"{source} imports {target}"


@pytest.mark.parametrize("source", [source for source in SOURCES if source.startswith("pipeline/")])
def test_imports_point_down(source):
    require_order(LAYERS, "pipeline", source)


@pytest.mark.parametrize("source", [source for source in SOURCES if source.startswith("pipeline/encoders/")])
def test_imports_among_encoders_point_down(source):
    require_order(ENCODERS, "pipeline.encoders", source)


def test_no_module_reaches_itself_by_its_imports():
    TopologicalSorter({name: imports(source) & MODULES.keys() for name, source in MODULES.items()}).prepare()


def test_modules_and_functions_are_read_in_one_sitting():
    lengths = {source: len((ROOT / source).read_text().splitlines()) for source in SOURCES}
    assert {source for source, lines in lengths.items() if lines > MOST_LINES} == MORE_LINES
    for source in SOURCES:
        for node in nodes(source):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                assert lines <= MOST_LINES_OF_A_FUNCTION, f"{source}: {node.name} has {lines} lines"


@pytest.mark.parametrize("source", SOURCES)
def test_heavy_packages_stay_in_their_rooms(source):
    for module in imports(source):
        allowed = HEAVY.get(module.split(".")[0])
        assert allowed is None or any(source.startswith(place) for place in allowed), f"{source} imports {module}"


def test_library_never_imports_the_edge():
    library = {source: imports(source) for source in SOURCES if source.startswith("pipeline/")}
    assert not [source for source, found in library.items() if any(name.split(".")[0] == "jobs" for name in found)]


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
        ("pipeline.encoders.files.locating", ("torch", "huggingface_hub", "botocore")),
        ("pipeline.encoders.measuring.tuning", ("torch", "transformers", "tokenizers")),
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
