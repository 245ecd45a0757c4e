"""Whether a node sees the folders of a job: a local path names another disk on another machine.

Without this check a node could commit shards to a disk of its own, where nobody looks for them.
"""

from __future__ import annotations

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline import plan as plans
from pipeline.corpus import CorpusFiles
from pipeline.exceptions import ConfigError
from pipeline.ray_data.order import WorkOrder
from pipeline.records import SourceFile
from pipeline.storage import open_store, split_uri


def require_shared(order: WorkOrder, source: SourceFile) -> None:
    """Look from every node that is there now at the output's plan and one source file.

    Raises:
        ConfigError: a node does not see them.
    """
    if not (_is_local(order.config.input.uri) or _is_local(order.config.output.uri)):
        return
    look = ray.remote(num_cpus=0, max_retries=0)(_look)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    looks = [look.options(scheduling_strategy=node).remote(order, source) for node in there]
    for node, found in zip(nodes, looks, strict=True):
        try:
            ray.get(found)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, ConfigError):
                raise ConfigError(cause.key, f"node {node['NodeManagerAddress']}: {cause.reason}") from None
            raise
        except ray.exceptions.RayError:
            continue  # the node went away; its replicas will look for themselves


def require_output(order: WorkOrder) -> None:
    """Make sure that this node's output folder is the one the driver planned in.

    Raises:
        ConfigError: it is not.
    """
    uri = order.config.output.uri
    if not _is_local(uri):
        return
    if plans.stored_id(open_store(uri)) != order.plan_id:
        raise ConfigError("output.uri", f"{uri!r} is not the driver's folder; use a shared disk or s3://")


def _look(order: WorkOrder, source: SourceFile) -> None:
    require_output(order)
    uri = order.config.input.uri
    if _is_local(uri) and CorpusFiles(uri).pin(source.path) is None:
        raise ConfigError("input.uri", f"{uri!r} is not the driver's folder; use a shared disk or a URI")


def _is_local(uri: str) -> bool:
    return split_uri(uri)[0] == "file"
