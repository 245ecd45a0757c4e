"""How many replicas a run has, and what each asks of a node."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

from pipeline.config import ClusterConfig, ReplicaRange
from pipeline.encoders import registry
from pipeline.encoders.base import EncoderSpec
from pipeline.ray_data.session import Session

GPU_READERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Begins with `first` replicas and stays between `fewest` and `most`; `gpus` of each is 0 on CPUs.

    `resources` are what Ray is asked for, for each of them.
    """

    fewest: int
    first: int
    most: int
    gpus: float
    resources: dict[str, Any]

    @property
    def readers(self) -> int:
        """Read tasks at a time.

        A GPU takes what several cores tokenize, and the cores there are bound the tasks; a CPU replica is ten times
        slower than the reading of its units, on the same cores.
        """
        return GPU_READERS * ceil(self.most * self.gpus) if self.gpus else self.most // 4 + 1


def plan_pool(config: ClusterConfig, session: Session, device: str, spec: EncoderSpec) -> Pool:
    """Size the pool as asked, or by what the cluster has now.

    A pool whose bounds are equal would wait for ever for a replica that was lost with its node, so that a fixed
    number is a pool that begins with its most.
    """
    resources = replica_resources(config, device)
    gpus = resources.get("num_gpus", 0.0)
    if isinstance(config.replicas, ReplicaRange):
        first, most = config.replicas.min, config.replicas.max
    else:
        first = most = _fixed(config, session, spec, gpus)
    return Pool(
        fewest=first if first < most else 1,
        first=first,
        most=most,
        gpus=gpus,
        resources=resources,
    )


def replica_resources(config: ClusterConfig, device: str) -> dict[str, Any]:
    """Return what Ray is asked for, for one replica: a GPU, a share of one, or a CPU, and where it may be."""
    asked: dict[str, Any] = {"num_cpus": 1}
    if device == "cuda":
        asked = {"num_gpus": config.gpus_per_replica, "num_cpus": 0}
    if config.accelerator_type is not None:
        asked["accelerator_type"] = config.accelerator_type
    if config.labels:
        asked["label_selector"] = config.labels
    return asked


def _fixed(config: ClusterConfig, session: Session, spec: EncoderSpec, gpus: float) -> int:
    if isinstance(config.replicas, int):
        return config.replicas
    if gpus:
        return max(int(session.gpus / gpus), 1)
    return registry.replicas_that_fit(spec, session.cpus, session.memory_bytes)
