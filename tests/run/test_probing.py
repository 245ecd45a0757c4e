"""What is asked of the machines that will encode is asked on them."""

from __future__ import annotations

import os

import pytest

from pipeline.doctor import diagnose
from pipeline.encoders.precision import detect
from pipeline.exceptions import ModelError
from pipeline.ray_data.probing import workplace

pytestmark = pytest.mark.ray


def test_a_cluster_is_asked_on_a_worker(config):
    with workplace(config.cluster) as call:
        assert call(lambda: os.getpid()) != os.getpid()  # noqa: PLW0108 - Ray takes no builtin


def test_an_error_of_a_worker_is_the_error(config):
    with workplace(config.cluster) as call, pytest.raises(ModelError, match="no CUDA device on this node"):
        call(detect, "cuda")


def test_a_job_on_a_cluster_is_healthy(config):
    found = {line.check: line for line in diagnose(config)}
    assert [line.check for line in found.values() if line.level == "error"] == []
    assert found["model"].message.startswith("hashing:16: one text encoded")
    assert "object store" not in found
