"""Plan and resume of very many units, and rows through read and commit: `python tests/benchmarks/scale.py --help`.

`units` makes an output of N committed units without encoding anything (every shard has the bytes of one real shard)
and times the command on it. `rows` runs generated rows through the hashing encoder, which takes a set time, and
samples the process tree: peaks are of anonymous memory; the object store's shared pages are counted apart. `series`
gives a growing input many outputs, planned one after the other, and times the plan of the next one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import plan as plans
from pipeline import shard
from pipeline.checkpoint import commits, manifest, receipts
from pipeline.config import parse_job
from pipeline.encoders.precision import Device
from pipeline.job import RECEIPTS_A_BATCH
from pipeline.plan import Plan, shard_key
from pipeline.ray_data.order import describe
from pipeline.records import Receipt
from pipeline.storage import Store, open_store

SAMPLE_SECONDS = 0.5
WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "sphinx", "of", "quartz")
KINDS = {"EncodeAndCommit": "encode actor", "read_units": "read task", "IDLE": "read task", "jobs.cli": "driver"}


def generate(folder: Path, rows: int, files: int) -> None:
    """Write rows of 30 to 270 characters to several JSON Lines files."""
    folder.mkdir(parents=True)
    for number in range(files):
        with (folder / f"part-{number:05d}.jsonl").open("w") as file:
            for row in range(number, rows, files):
                text = " ".join(WORDS[(row + step) % len(WORDS)] for step in range(5 + row % 50))
                file.write(json.dumps({"id": row, "text": f"{row} {text}"}) + "\n")


def timed(what: str, began: float) -> None:
    """Print how long something took."""
    print(f"  {what:<76} {time.monotonic() - began:8.2f} s", flush=True)


def command(work: Path, model: str, *settings: str) -> list[str]:
    """Return the command that embeds the generated rows."""
    keys = [argument for setting in settings for argument in ("--set", setting)]
    uris = ["--input", str(work / "in"), "--output", str(work / "out"), "--model", model]
    return [sys.executable, "-m", "jobs.cli", "run", *uris, *keys, "--json"]


def units(count: int, files: int) -> None:
    """Plan, commit without encoding, then resume with and without a manifest."""
    print(f"{count:,} units of one row in {files:,} files")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        generate(work / "in", count, files)
        store = open_store(str(work / "out"))
        plan = _plan(work, store)
        began = time.monotonic()
        found = _commit_copies(store, plan, work / "out")
        timed("copies of one shard written, not synced", began)
        began = time.monotonic()
        present = commits.committed(store, plan.plan_id)
        timed(f"listing of {len(present):,} shards", began)
        _resume(work, "resume, all committed, no manifest")
        _resume(work, "resume, all committed, manifest stands")
        assert manifest.load_head(store) is not None
        assert len(found) == count


def _plan(work: Path, store: Store) -> Plan:
    job = {
        "input": {"uri": str(work / "in")},
        "encoder": {"model": "hashing:16"},
        "output": {"uri": str(work / "out"), "unit_rows": 1},
    }
    began = time.monotonic()
    plan = plans.make_plan(parse_job(job), Device(kind="cpu", bf16=False))
    timed("plan made", began)
    began = time.monotonic()
    plans.publish(store, plan)
    timed("plan stored", began)
    began = time.monotonic()
    assert plans.load(store) == plan
    timed("plan loaded", began)
    return plan


def _commit_copies(store: Store, plan: Plan, output: Path) -> list[Receipt]:
    """Give each unit a shard of the same bytes and a receipt in the cache, as a run would have left them."""
    embedding = pa.FixedSizeListArray.from_arrays(pa.array([1.0] + [0.0] * 15, pa.float32()), 16)
    columns = {"id": ["0"], "embedding": embedding, "n_tokens": [1], "truncated": [False]}
    columns |= {"source_file": ["part-00000.jsonl"], "source_row": [0]}
    table = pa.table([pa.array(columns[name], plan.schema.field(name).type) for name in plan.schema.names], plan.schema)
    info = shard.ShardInfo(plan_id=plan.plan_id, unit=0, description=describe(plan))
    made = shard.build(info, shard_key(plan.plan_id, 0), table, shard.dead_table([]))
    (output / "data").mkdir()
    log = receipts.ReceiptLog(store, 1, RECEIPTS_A_BATCH)
    found = []
    for unit in plan.units:
        key = shard_key(plan.plan_id, unit.number)
        (output / key).write_bytes(made.data)
        found.append(replace(made.receipt, unit=unit.number, key=key))
        log.add(found[-1])
    log.flush()
    return found


def _resume(work: Path, what: str) -> None:
    began = time.monotonic()
    with subprocess.Popen(command(work, "hashing:16", "output.unit_rows=1"), stdout=subprocess.PIPE) as process:
        report = json.loads(process.stdout.read())
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert report["complete"], report
    cpu = usage.ru_utime + usage.ru_stime
    timed(f"{what} ({cpu:.2f} s CPU, peak {usage.ru_maxrss >> 10} MiB)", began)


def series(count: int, files: int) -> None:
    """Plan `count` outputs of a series, each after `files` new files, and time the last ones."""
    print(f"a series of {count:,} outputs of {files:,} files each")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for number in range(count + 1):
            for file in range(files):
                path = work / "in" / f"{number:06d}-{file:06d}.jsonl"
                path.parent.mkdir(exist_ok=True)
                path.write_text('{"text": "a text"}\n')
            job = {
                "input": {"uri": str(work / "in")},
                "encoder": {"model": "hashing:16"},
                "output": {"uri": str(work / f"out/{number:06d}"), "series": str(work / "out")},
            }
            config = parse_job(job)
            began = time.monotonic()
            taken = plans.read_taken(config, joining=True)
            read = time.monotonic() - began
            plan = plans.make_plan(config, Device(kind="cpu", bf16=False), taken=taken)
            assert (len(plan.sources), len(taken.files)) == (files, number * files)
            if number in (1, count // 10, count):
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
                timed(f"planned after {number:,} others, read in {read:.2f} s (peak {peak} MiB)", began)
            plans.publish(open_store(config.output.uri), plan)


def rows(count: int, replicas: int, delay: int, unit_rows: int) -> None:
    """Run generated rows through read, encode with a delay, and commit; print rates and peaks."""
    model = f"hashing:256?delay_ms_per_1000_rows={delay}"
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        generate(work / "in", count, 8)
        with _ray(replicas) as address:
            keys = (f"output.unit_rows={unit_rows}", f"cluster.replicas={replicas}", *address)
            peaks, cpu, report = _sampled(command(work, model, *keys))
    now = report["this_run"]
    print(f"{count:,} rows, {now['units']:,} units, {replicas} replicas with {delay} ms a 1,000 rows")
    limit = f" of {1000 * replicas / delay * 1000:,.0f} the delay allows" if delay else ""
    print(f"  {now['steady_rows_per_s']:,.0f} rows/s{limit}, {now['units'] / now['seconds']:,.1f} units/s committed")
    print(f"  start-up {now['startup_seconds']} s, bottleneck {now['bottleneck']}, busy {now['replicas_busy']}")
    print(f"  driver {cpu:,.1f} s CPU, {1000 * cpu / now['units']:,.0f} ms a unit; stages {now['stage_seconds']}")
    shown = ", ".join(f"{kind} {size / 2**20:,.0f} MiB" for kind, size in sorted(peaks.items()))
    print(f"  peaks: {shown}", flush=True)


@contextmanager
def _ray(replicas: int) -> Iterator[list[str]]:
    """Yield the settings of a Ray with a CPU a replica: the run's own, or one that claims more cores than are here.

    Replicas that sleep need no core, and the driver has as much to do as on a machine that has them.
    """
    if replicas <= (os.cpu_count() or 1):
        yield ["cluster.address=local"]
        return
    os.environ["RAY_AUTH_MODE"] = "disabled"
    from ray.cluster_utils import Cluster

    head = {"num_cpus": replicas, "object_store_memory": 1 << 30, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield [f"cluster.address={cluster.address}", "cluster.device=cpu"]
    finally:
        cluster.shutdown()


def tree(root: int) -> list[int]:
    """Process ids below and including one; Ray starts its own in the same session."""
    children = defaultdict(list)
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children[int(fields[1])].append(int(status.parent.name))
    found, waiting = [], [root]
    while waiting:
        process = waiting.pop()
        found.append(process)
        waiting += children[process]
    return found


def sample(root: int) -> dict[str, list[int]]:
    """Anonymous and shared resident bytes by kind of process."""
    memory: dict[str, list[int]] = defaultdict(list)
    for process in tree(root):
        try:
            name = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        except OSError:
            continue
        kind = next((label for part, label in KINDS.items() if part in name), None)
        if kind and "RssAnon" in status:
            memory[kind].append(int(status["RssAnon"].split()[0]) << 10)
        if "RssShmem" in status:
            memory["object store pages"].append(int(status["RssShmem"].split()[0]) << 10)
    return memory


def _sampled(arguments: list[str]) -> tuple[dict[str, int], float, dict[str, Any]]:
    """Run a command; return peaks of memory by kind of process, the driver's CPU seconds, and its report."""
    peaks: dict[str, int] = defaultdict(int)
    cpu = 0.0
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        while process.poll() is None:
            for kind, values in sample(os.getpid()).items():
                peaks[kind] = max([peaks[kind], *values])
            cpu = max(cpu, _cpu_seconds(process.pid))
            time.sleep(SAMPLE_SECONDS)
        return peaks, cpu, json.loads(process.stdout.read())


def _cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Run one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    units_parser = verbs.add_parser("units")
    units_parser.add_argument("count", type=int, nargs="?", default=100_000)
    units_parser.add_argument("--files", type=int, default=100)
    series_parser = verbs.add_parser("series")
    series_parser.add_argument("count", type=int, nargs="?", default=100)
    series_parser.add_argument("--files", type=int, default=100)
    rows_parser = verbs.add_parser("rows")
    rows_parser.add_argument("counts", type=int, nargs="*", default=[100_000, 1_000_000])
    rows_parser.add_argument("--replicas", type=int, default=2)
    rows_parser.add_argument("--delay", type=int, default=0, help="milliseconds a 1,000 rows")
    rows_parser.add_argument("--unit-rows", type=int, default=4096)
    asked = parser.parse_args()
    if asked.verb == "units":
        units(asked.count, asked.files)
    elif asked.verb == "series":
        series(asked.count, asked.files)
    else:
        for count in asked.counts:
            rows(count, asked.replicas, asked.delay, asked.unit_rows)


if __name__ == "__main__":
    main()
