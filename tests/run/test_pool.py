"""How many replicas a run has, and what each asks of a node."""

from __future__ import annotations

import pytest

from pipeline.config import ClusterConfig
from pipeline.encoders import registry
from pipeline.encoders.precision import Device
from pipeline.ray_data.pool import Pool, plan_pool
from pipeline.ray_data.session import Session


def pool(device: str, **keys: object) -> Pool:
    from pipeline.config import EncoderConfig

    spec = registry.resolve(EncoderConfig(model="hashing:8"), Device(kind="cpu", bf16=False))
    session = Session(local=False, cpus=6, gpus=4, memory_bytes=1 << 34)
    return plan_pool(ClusterConfig(**keys), session, device, spec)


@pytest.mark.parametrize(
    ("device", "keys", "expected"),
    [
        ("cpu", {}, (1, 6, 6)),
        ("cpu", {"replicas": 3}, (1, 3, 3)),
        ("cuda", {}, (1, 4, 4)),
        ("cuda", {"gpus_per_replica": 0.5}, (1, 8, 8)),
        ("cuda", {"replicas": {"min": 2, "max": 16}}, (2, 2, 16)),
        ("cuda", {"replicas": {"min": 5, "max": 5}}, (1, 5, 5)),
    ],
)
def test_its_size_is_as_asked_or_what_the_cluster_has(device, keys, expected):
    found = pool(device, **keys)
    assert (found.fewest, found.first, found.most) == expected


def test_a_fixed_pool_can_lose_a_replica_with_its_node():
    """Ray waits for ever for the fewest; see ray-data's node losses in tests/submission."""
    assert pool("cpu", replicas=2).fewest < 2


def test_replicas_on_a_cpu_take_one_and_no_gpu():
    assert pool("cpu", gpus_per_replica=0.5).resources == {"num_cpus": 1}


def test_replicas_on_gpus_leave_the_cpus_to_reading():
    asked = {"gpus_per_replica": 0.25, "accelerator_type": "L4", "labels": {"ray.io/market-type": "spot"}}
    assert pool("cuda", **asked).resources == {
        "num_gpus": 0.25,
        "num_cpus": 0,
        "accelerator_type": "L4",
        "label_selector": {"ray.io/market-type": "spot"},
    }


def test_readers_follow_the_gpus_and_not_the_replicas_on_them():
    assert pool("cuda", replicas=8, gpus_per_replica=0.5).readers == pool("cuda", replicas=4).readers
