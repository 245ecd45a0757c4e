"""What Prometheus can see of a run: counters of what this run did and gauges of where its output stands.

The driver alone counts, from receipts, and Ray exports it with its own metrics, each name with `ray_` before it and a
counter with `_total` after it. Labels stay few: the job's name, a dead letter's code, a stage; never a file or row.
"""

from __future__ import annotations

import time

from ray.util.metrics import Counter, Gauge

from pipeline.records import Receipt
from pipeline.telemetry import Progress

COUNTERS = {
    "embatch_units": "Units committed by this run",
    "embatch_rows": "Rows of committed units, dead letters included",
    "embatch_tokens": "Tokens of embedded rows",
    "embatch_truncated_rows": "Embedded rows of which the end was cut off",
    "embatch_output_bytes": "Bytes of committed shards",
    "embatch_batch_tokens": "Tokens in batches of the device",
    "embatch_batch_room": "Tokens that these batches had room for",
}
BY_LABEL = {
    "embatch_dead_rows": ("Rows set aside as dead letters", "code"),
    "embatch_stage_seconds": ("Seconds of work and of replicas' idling, summed over the cluster", "stage"),
}
GAUGES = {
    "embatch_units_planned": "Units of the output's plan",
    "embatch_units_committed": "Units of the output that are committed, by earlier runs too",
    "embatch_replicas": "Encoder replicas that have joined the run",
    "embatch_seconds_left": "Estimate of the time to the last commit",
    "embatch_last_commit_time": "Unix time of the last commit, of the start before the first",
}


class Metrics:
    """One run's metrics; counted on the driver, so that each unit counts once."""

    def __init__(self, job: str) -> None:
        self._counters = {name: Counter(name, text, tag_keys=("embatch_job",)) for name, text in COUNTERS.items()}
        self._by_label = {
            name: Counter(name, text, tag_keys=("embatch_job", key)) for name, (text, key) in BY_LABEL.items()
        }
        self._gauges = {name: Gauge(name, text, tag_keys=("embatch_job",)) for name, text in GAUGES.items()}
        for metric in (*self._counters.values(), *self._by_label.values(), *self._gauges.values()):
            metric.set_default_tags({"embatch_job": job})
        self._gauges["embatch_last_commit_time"].set(time.time())

    def committed(self, receipt: Receipt) -> None:
        """Count a unit."""
        counts = {
            "embatch_units": 1,
            "embatch_rows": receipt.rows_in,
            "embatch_tokens": receipt.tokens,
            "embatch_truncated_rows": receipt.truncated,
            "embatch_output_bytes": receipt.size_bytes,
        }
        if receipt.effort is not None:
            counts["embatch_batch_tokens"] = receipt.effort.batch_tokens
            counts["embatch_batch_room"] = receipt.effort.batch_room
        for name, count in counts.items():
            _add(self._counters[name], count)
        for code, count in receipt.dead_by_code.items():
            _add(self._by_label["embatch_dead_rows"], count, code=code)
        for stage, seconds in (receipt.effort.seconds if receipt.effort else {}).items():
            _add(self._by_label["embatch_stage_seconds"], seconds, stage=stage)
        self._gauges["embatch_last_commit_time"].set(time.time())

    def stands(self, progress: Progress, replicas: int) -> None:
        """Set the gauges."""
        values = {
            "embatch_units_planned": progress.units_total,
            "embatch_units_committed": progress.units_done,
            "embatch_replicas": replicas,
            "embatch_seconds_left": progress.left_seconds or 0.0,
        }
        for name, value in values.items():
            self._gauges[name].set(value)


def _add(counter: Counter, count: float, **tags: str) -> None:
    if count > 0:  # Ray refuses to add nothing
        counter.inc(count, tags)
