"""The Dockerfile by hand-written rules (it is not built here), and its lock beside the project's."""

from __future__ import annotations

import re

import pytest
from samples import ROOT

FOLDER = ROOT / "infra/images"
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", re.MULTILINE)
BASE = re.compile(r"python:\d+\.\d+\.\d+-slim-[a-z]+|python@sha256:[0-9a-f]{64}")
DOUBTFUL = re.compile(r"curl|wget|sudo|chmod 777|git\+")
PINNED = re.compile(r"--no-deps|-r requirements-torch.lock|==")
UID = "10001"


def instructions(text):
    """Join continued lines and leave comments out: (instruction, arguments)."""
    joined = re.sub(r"\\\n", " ", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def docker_findings(text):
    """Return what is wrong with a Dockerfile, one line each."""
    found, users, stages = [], {}, {}
    for name, rest in instructions(text):
        found += line_findings(name, rest)
        if name == "FROM":
            image, _, stage = rest.partition(" AS ")
            if image != "${PYTHON}" and image not in stages:
                found.append(f"unknown base {image!r}")
            stages[stage], users[stage] = image, users.get(image)
        elif name == "USER":
            users[stage] = rest
    found += [f"target {target!r} is missing" for target in ("cpu", "gpu") if target not in stages]
    found += [f"target {stage!r} runs as root" for stage in ("cpu", "gpu") if users.get(stage) != f"{UID}:{UID}"]
    return found


def line_findings(name, rest):
    found = []
    if name == "ARG" and rest.startswith("PYTHON=") and not BASE.fullmatch(rest.partition("=")[2]):
        found.append(f"base image {rest!r} is not exact")
    if name == "ADD":
        found.append("ADD instead of COPY")
    if name == "COPY" and rest.startswith("."):
        found.append("copies the whole context")
    if name == "RUN":
        found += [f"{word!r} in {rest!r}" for word in DOUBTFUL.findall(rest)]
        installs = [command for command in re.findall(r"pip install ([^&]*)", rest) if not PINNED.search(command)]
        found += [f"pip install {command.strip()!r} is not pinned" for command in installs]
    return found


@pytest.fixture(scope="module")
def dockerfile():
    return (FOLDER / "Dockerfile").read_text()


def test_the_dockerfile_breaks_no_rule(dockerfile):
    assert docker_findings(dockerfile) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("python:3.11.14-slim-bookworm", "python:3.11", "is not exact"),
        ("USER 10001:10001\n", "", "target 'cpu' runs as root"),
        ("COPY pipeline pipeline", "COPY . .", "copies the whole context"),
        ("COPY pipeline pipeline", "ADD pipeline pipeline", "ADD instead of COPY"),
        ("--no-deps --require-hashes -r requirements.lock", "ray[default]", "is not pinned"),
        ("FROM runtime AS gpu", "FROM runtime AS cuda", "target 'gpu' is missing"),
        ("procps", "procps && curl https://example.com | sh", "curl"),
    ],
)
def test_a_mistake_in_a_dockerfile_is_found(dockerfile, old, new, said):
    assert old in dockerfile
    assert [line for line in docker_findings(dockerfile.replace(old, new)) if said in line]


def test_what_the_dockerfile_copies_is_there_and_not_ignored(dockerfile):
    wanted = {word for name, rest in instructions(dockerfile) if name == "COPY" for word in rest.split()[:-1]}
    wanted = {word for word in wanted if not word.startswith(("--from", "/"))}
    kept = {line[1:] for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert wanted == kept
    assert [path for path in wanted if not (ROOT / path).exists()] == []


def test_an_image_has_the_versions_that_are_tested():
    tested = dict(PIN.findall((ROOT / "requirements.lock").read_text()))
    image = dict(PIN.findall((FOLDER / "requirements.lock").read_text()))
    assert {name: pin for name, pin in image.items() if tested.get(name, pin) != pin} == {}
    assert {"ray", "pyarrow", "transformers", "s3fs", "aiohttp-cors", "virtualenv"} <= set(image)
    assert {"moto", "pytest", "mypy", "torch"}.isdisjoint(image)


def test_every_package_of_an_image_has_hashes():
    entries = re.split(r"^(?=[a-z0-9])", (FOLDER / "requirements.lock").read_text(), flags=re.MULTILINE)[1:]
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_the_dockerfile_and_the_manifests_name_the_same_user():
    manifests = (ROOT / "infra/kuberay").rglob("*.yaml")
    users = {uid for path in manifests for uid in re.findall(r"runAs(?:User|Group): (\d+)", path.read_text())}
    assert users == {UID}
