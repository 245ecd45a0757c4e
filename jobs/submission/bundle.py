"""What travels to a cluster: the job with every default filled in, and embatch itself where the image lacks it.

The code travels as an unpacked wheel in the working directory, which Ray puts first on the path of the driver and of
every worker. A wheel given to Ray as such would be installed with all its dependencies, torch included, on each node.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

import jobs
import pipeline
from pipeline.config import JobConfig
from pipeline.exceptions import ConfigError
from pipeline.storage import split_uri

JOB_FILE = "job.yaml"
DISTRIBUTION = "embatch"
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "corpus")


@contextmanager
def bundle(job: JobConfig, *, code: bool) -> Iterator[Path]:
    """Yield a folder with the job file and, with `code`, the packages and metadata of the embatch that runs here."""
    with TemporaryDirectory(prefix="embatch-submit-") as work:
        folder = Path(work)
        (folder / JOB_FILE).write_text(yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
        if code:
            for package in (pipeline, jobs):
                source = Path(package.__path__[0])
                shutil.copytree(source, folder / source.name, ignore=_LEFT_OUT)
            _write_metadata(folder)
        yield folder


def entrypoint(verb: str, *, code: bool, options: tuple[str, ...] = ()) -> str:
    """Return the command line that runs a verb on the bundled job: of the bundled code, or of the image."""
    command = "python -m jobs.cli" if code else DISTRIBUTION
    return " ".join((command, verb, JOB_FILE, *options))


def for_cluster(job: JobConfig) -> JobConfig:
    """Return the job as the cluster's driver has to read it.

    Raises:
        ConfigError: a key means something on this machine only.
    """
    if job.cluster.device == "auto":
        raise ConfigError("cluster.device", "set cpu or cuda: this machine's own devices say nothing of a cluster's")
    for key, uri in (("input.uri", job.input.uri), ("output.uri", job.output.uri)):
        if split_uri(uri)[0] == "file" and not uri.startswith(("/", "file:///")):
            raise ConfigError(key, f"{uri!r} is relative to a folder of this machine; give what the cluster can reach")
    cluster = job.cluster.model_copy(update={"address": "auto"})  # the job server tells its driver the address
    return job.model_copy(update={"cluster": cluster})


def _write_metadata(folder: Path) -> None:
    """Let the bundled code find its own version, which claims and reports record."""
    installed = distribution(DISTRIBUTION)
    target = folder / f"{DISTRIBUTION}-{installed.version}.dist-info"
    target.mkdir()
    # a checkout has the same under its older name
    text = installed.read_text("METADATA") or installed.read_text("PKG-INFO") or ""
    (target / "METADATA").write_text(text, encoding="utf-8")
