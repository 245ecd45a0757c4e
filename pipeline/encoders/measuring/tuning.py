"""Measure a model on this machine, and recommend other settings only where they are surely faster.

Compared are replicas and threads, tokens a batch, and precision. Candidates are measured in turn (A B C, A B C, …), so
that a machine that slows down slows all of them. What differs by less than noise is no reason to leave the default.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config import EncoderConfig
from pipeline.encoders import registry
from pipeline.encoders.base import EncoderSpec, PreparedTexts
from pipeline.encoders.measuring.replicas import ReplicaPool
from pipeline.encoders.precision import Device
from pipeline.exceptions import ConfigError, ModelError

ROUNDS = 3
MIN_GAIN = 1.03
"""Faster than the default by this factor in every round, or the default stays."""
BATCH_FACTORS = (0.25, 0.5, 2, 4)
MIX_TEXTS, MIX_SEED = 4096, 5
NEIGHBOURS = 8
"""Texts of similar length that are taken together, so that a few texts batch like the thousands of a unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One way to run a model."""

    replicas: int
    threads: int
    max_batch_tokens: int
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Tokens a second of all replicas together, one value a round; 0 where the memory was not enough."""

    setting: Setting
    tokens_per_s: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return median(self.tokens_per_s)

    def ratios(self, other: Measurement) -> list[float]:
        """Return how many times as fast as another this one was, in each round."""
        pairs = zip(self.tokens_per_s, other.tokens_per_s, strict=True)
        return [ours / theirs if theirs else float(ours > 0) for ours, theirs in pairs]

    def ratio(self, other: Measurement) -> float:
        """Return how many times as fast as another this one is: the median over the rounds."""
        return median(self.ratios(other))


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Settings that differ in one key of the job, the one that holds without it, and the one to take."""

    key: str
    measurements: tuple[Measurement, ...]
    baseline: Measurement
    best: Measurement

    @property
    def gain(self) -> float:
        """How many times as fast as the baseline the best one is."""
        return self.best.ratio(self.baseline)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a tuning may use: `replicas` is fixed where the job says so; `seconds` for each candidate and round."""

    cpus: int
    replicas: int | None = None
    seconds: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """The outcome. `best` runs as the job says but for `settings`; `texts` and `tokens` are one measurement's work."""

    model: str
    device: str
    comparisons: tuple[Comparison, ...]
    best: Measurement
    texts: int
    tokens: int

    @property
    def settings(self) -> dict[str, int]:
        """Keys and values that are faster than the job as it is; precision is left to its owner."""
        values = {"cluster.replicas": self.best.setting.replicas}
        values["encoder.max_batch_tokens"] = self.best.setting.max_batch_tokens
        changed = {found.key for found in self.comparisons if found.best != found.baseline}
        return {key: value for key, value in values.items() if key in changed}

    def to_values(self) -> dict[str, Any]:
        """Return all fields, the settings, and each comparison's gain."""
        comparisons = [
            {
                "key": found.key,
                "baseline": asdict(found.baseline.setting),
                "best": asdict(found.best.setting),
                "gain": round(found.gain, 3),
                "measurements": [asdict(measured) for measured in found.measurements],
            }
            for found in self.comparisons
        ]
        return {**asdict(self), "settings": self.settings, "comparisons": comparisons}


def tune(
    config: EncoderConfig,
    device: Device,
    limits: Limits,
    prepared: PreparedTexts | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Tuning:
    """Measure a model on texts of one's own, or on a mix of lengths.

    Args:
        config: the model with its keys; what they fix is the baseline.
        device: what the measurement runs on, of this machine.
        limits: cores and time.
        prepared: texts of which some are taken; None takes `length_mix`.
        say: told what is measured next.

    Raises:
        ConfigError: the model is not one that can be tuned.
        ModelError: it cannot be loaded, or the memory is not enough for the job as it is.
    """
    spec = registry.resolve(config, device)
    if spec.kind in ("hashing", "remote"):
        raise ConfigError("encoder.model", f"{spec.model!r} has nothing to tune")
    layouts = _layouts(spec, device, limits)
    with ReplicaPool(max(replicas for replicas, _ in layouts), device.kind) as pool:
        return _Tuner(config, device, pool, say).run(spec, layouts, _source(spec, prepared), limits.seconds)


class _Tuner:
    """One key after the other, each at the best of those before."""

    def __init__(self, config: EncoderConfig, device: Device, pool: ReplicaPool, say: Callable[[str], None]) -> None:
        self._config, self._device, self._pool, self._say = config, device, pool, say
        self._specs: dict[str, EncoderSpec] = {}
        self._seconds = 0.0

    def run(self, spec: EncoderSpec, layouts: list[tuple[int, int]], texts: PreparedTexts, seconds: float) -> Tuning:
        options = [
            Setting(replicas=count, threads=threads, max_batch_tokens=spec.max_batch_tokens, dtype=spec.dtype)
            for count, threads in layouts
        ]
        work = self._work(options[0], texts, seconds)
        tokens = int(work.n_tokens.sum())
        found, best = [], options[0]
        if len(options) > 1:
            found.append(self._compare("cluster.replicas", options, work))
            best = found[-1].best.setting
        options = [replace(best, max_batch_tokens=budget) for budget in _budgets(spec.max_batch_tokens, tokens)]
        found.append(self._compare("encoder.max_batch_tokens", options, work))
        best, measured = found[-1].best.setting, found[-1].best
        if self._device.bf16:
            options = [replace(best, dtype=dtype) for dtype in dict.fromkeys((best.dtype, "bfloat16", "float32"))]
            found.append(self._compare("encoder.dtype", options, work))
        return Tuning(
            model=spec.model,
            device=self._device.kind,
            comparisons=tuple(found),
            best=measured,
            texts=len(work.n_tokens),
            tokens=tokens,
        )

    def _work(self, setting: Setting, texts: PreparedTexts, seconds: float) -> PreparedTexts:
        """Choose texts that one replica encodes in about the time given, but no less than two batches."""
        least = 2 * setting.max_batch_tokens
        self._say("loading the model, and a first look at its speed")
        self._measure(setting, excerpt(texts, least // 2))  # the first products are slower
        rate = self._measure(setting, excerpt(texts, least // 2)) / setting.replicas
        if not rate:
            reason = f"the memory is not enough for batches of {setting.max_batch_tokens} tokens"
            raise ModelError(self._config.model, f"{reason}; set a smaller encoder.max_batch_tokens")
        tokens = max(round(rate * seconds), least)
        self._seconds = tokens / rate
        return excerpt(texts, tokens)

    def _compare(self, key: str, options: list[Setting], work: PreparedTexts) -> Comparison:
        """Measure settings in turn, the baseline first."""
        about = self._seconds * len(options) * ROUNDS
        self._say(f"{key}: {len(options)} candidates, {ROUNDS} rounds, about {about:,.0f} s and loading")
        rates: dict[Setting, list[float]] = {setting: [] for setting in options}
        for _ in range(ROUNDS):
            for setting, measured in rates.items():
                measured.append(self._measure(setting, work))
        return choose(key, [Measurement(setting=it, tokens_per_s=tuple(rates[it])) for it in options])

    def _measure(self, setting: Setting, work: PreparedTexts) -> float:
        spec = replace(self._spec(setting.dtype), max_batch_tokens=setting.max_batch_tokens)
        rate = self._pool.tokens_per_s(spec, work, replicas=setting.replicas, threads=setting.threads)
        return round(rate, 1)

    def _spec(self, dtype: str) -> EncoderSpec:
        """Resolve the model in a precision as a job's key would: it may run another way in it."""
        if dtype not in self._specs:
            self._specs[dtype] = registry.resolve(self._config.model_copy(update={"dtype": dtype}), self._device)
        return self._specs[dtype]


def choose(key: str, measurements: Sequence[Measurement]) -> Comparison:
    """Take the fastest that beats the first, the baseline, by `MIN_GAIN` in every round; else the baseline."""
    default = measurements[0]
    better = [found for found in measurements if min(found.ratios(default)) >= MIN_GAIN]
    best = max(better, key=lambda found: found.median, default=default)
    return Comparison(key=key, measurements=tuple(measurements), baseline=default, best=best)


def available_cpus() -> int:
    """Return the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _layouts(spec: EncoderSpec, device: Device, limits: Limits) -> list[tuple[int, int]]:
    """Return replicas and threads to compare, the baseline first; a run gives each replica its share of the cores."""
    if device.kind == "cuda":
        return [(1, limits.cpus)]
    if limits.replicas is not None:
        counts = [limits.replicas]
    else:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        most = registry.replicas_that_fit(spec, limits.cpus, memory)
        counts = list(dict.fromkeys((most, max(most // 2, 1), max(most // 4, 1))))
    return [(count, max(limits.cpus // count, 1)) for count in counts]


def _budgets(default: int, tokens: int) -> list[int]:
    """Return the baseline, then other budgets that so many tokens fill at least once."""
    budgets = dict.fromkeys(max(round(default * factor), 1) for factor in (1, *BATCH_FACTORS))
    return [budget for budget in budgets if budget <= max(tokens, default)]


def _source(spec: EncoderSpec, prepared: PreparedTexts | None) -> PreparedTexts:
    if prepared is not None and len(prepared.n_tokens):
        return prepared
    vocabulary = json.loads(Path(spec.folder, "config.json").read_text(encoding="utf-8")).get("vocab_size")
    if vocabulary is None:
        raise ModelError(spec.model, "its config.json names no vocab_size; measure on texts of your own")
    return length_mix(spec.max_seq_length, vocabulary)


def length_mix(max_seq_length: int, vocabulary: int) -> PreparedTexts:
    """Make texts of random tokens, the same ones at any time: lengths log-normal around a fifth of the limit."""
    draw = np.random.default_rng(MIX_SEED)
    lengths = np.rint(draw.lognormal(np.log(max_seq_length / 5), 0.9, MIX_TEXTS)).clip(1, max_seq_length)
    zeros = pa.array(np.zeros(MIX_TEXTS, np.int32))
    rows = {
        "n_tokens": pa.array(lengths.astype(np.int32)),
        "truncated": pa.array(np.zeros(MIX_TEXTS, bool)),
        "chars": zeros,
        "chars_lost": zeros,
        "prompt_tokens": zeros,
        "no_room": pa.array(np.zeros(MIX_TEXTS, bool)),
    }
    ids = draw.integers(vocabulary // 10, vocabulary, int(lengths.sum()), np.int32)  # special tokens come first
    return PreparedTexts(rows=rows, token_ids=pa.array(ids))


def excerpt(prepared: PreparedTexts, tokens: int) -> PreparedTexts:
    """Take texts of about so many tokens in all, evenly over the lengths, again where there are too few."""
    order = np.argsort(-prepared.n_tokens, kind="stable")
    groups = [order[start : start + NEIGHBOURS] for start in range(0, len(order), NEIGHBOURS)]
    count = max(round(len(groups) * tokens / max(int(prepared.n_tokens.sum()), 1)), 1)
    chosen = ((np.arange(count) + 0.5) * len(groups) / count).astype(int)
    return _take(prepared, np.concatenate([groups[index] for index in chosen]))


def _take(prepared: PreparedTexts, rows: npt.NDArray[np.int64]) -> PreparedTexts:
    parts = np.split(np.asarray(prepared.token_ids), np.cumsum(prepared.n_tokens)[:-1])
    columns = {name: column.take(pa.array(rows)) for name, column in prepared.rows.items()}
    return PreparedTexts(rows=columns, token_ids=pa.array(np.concatenate([parts[row] for row in rows])))
