"""What a local run starts and does not start, and what its report says of the time."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from samples import ROOT, job_over

from pipeline.ray_data import lean


def test_ray_still_has_what_a_local_run_leaves_out():
    from ray._private import utils
    from ray._private.node import Node
    from ray.data._internal.stats import _StatsManager

    for name in ("start_api_server", "start_monitor", "start_log_monitor"):
        assert callable(getattr(Node, name))
    assert callable(utils.get_dashboard_dependency_error)
    assert all(isinstance(_StatsManager.__dict__[name], staticmethod) for name in lean.STATISTICS)


@pytest.mark.ray
def test_a_run_tells_start_up_from_steady_state(embatch, job_file):
    done = embatch("run", str(job_file), "--json")
    now = json.loads(done.stdout)["this_run"]
    assert 0 < now["startup_seconds"] < now["seconds"]
    assert now["steady_rows_per_s"] > now["rows_per_s"]
    assert now["steady_tokens_per_s"] > now["tokens_per_s"]
    assert {"read", "tokenize", "encode", "commit"} < now["stage_seconds"].keys()
    assert now["bottleneck"] == "start-up"


@pytest.mark.ray
def test_a_complete_output_starts_no_ray(finished, tmp_path):
    job_file = tmp_path / "job.json"
    job_file.write_text(json.dumps(job_over(finished.corpus, finished.config.output.uri)))
    code = "import atexit, sys; from jobs.cli import main; from pipeline import job\n"
    code += "atexit.register(lambda: print('ray' in sys.modules, file=sys.stderr))\n"
    code += f"sys.argv = ['embatch', 'run', {str(job_file)!r}]; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr.strip() == "False"
    assert "already complete" in done.stdout
