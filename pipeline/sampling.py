"""A look at a job's first rows: how long its texts are, and how many cores keep tokenizing ahead of an encoder.

An impression for people, taken in about a second; nothing in the plan depends on it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from pipeline.config import JobConfig
from pipeline.corpus import CorpusFiles, Documents, RowRule, reader_of
from pipeline.corpus.columns import ColumnCheck
from pipeline.corpus.documents import Collector
from pipeline.corpus.reader import CutLimits
from pipeline.encoders.base import EncoderSpec, PreparedTexts, Preparer
from pipeline.encoders.precision import assumed_flops_per_s
from pipeline.encoders.registry import build_preparer
from pipeline.records import SourceFile

ROWS, SIZE_BYTES, FILES = 512, 2 << 20, 8
WARM_UP_ROWS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The first usable rows of a corpus, and how fast one core tokenized them.

    `truncated` counts rows longer than the model reads; `tokens` are those that remain, special and prompt
    tokens included.
    """

    rows: int
    tokens: int
    truncated: int
    tokens_per_core_s: float


def prepare_first(
    config: JobConfig, spec: EncoderSpec, sources: list[SourceFile], rows: int = ROWS
) -> tuple[PreparedTexts, Sample] | None:
    """Read and tokenize the first rows of the first files; None where they hold no usable row.

    Raises:
        SourceError: a file cannot be read, or a column has a type that does not fit.
        ConfigError: a key names a column that a file does not have.
    """
    documents = _first_documents(config, sources, rows)
    if not documents.texts:
        return None
    per_row = RowRule(config.input, config.encoder.prompt).has_prompts
    prompts = documents.prompts if per_row else None
    prepared, seconds = _timed(build_preparer(spec), documents.texts, prompts)
    tokens = int(prepared.n_tokens.sum())
    return prepared, Sample(
        rows=len(documents.texts),
        tokens=tokens,
        truncated=sum(prepared.rows["truncated"].to_pylist()),
        tokens_per_core_s=round(tokens / seconds, 1),
    )


def check_first(config: JobConfig, sources: list[SourceFile]) -> int:
    """Look for the job's columns in the first files; return how many were looked at.

    Raises:
        SourceError: a file cannot be read, or a column has a type that does not fit.
        ConfigError: a key names a column that a file does not have.
    """
    files, rule = CorpusFiles(config.input.uri), RowRule(config.input, config.encoder.prompt)
    check, first_row = ColumnCheck(config.input, rule), CutLimits(rows=1, size_bytes=SIZE_BYTES, total_rows=1)
    for source in sources[:FILES]:
        check.add(source, reader_of(source, config.input).inspect(files, source, first_row).columns)
    if len(sources) <= FILES:
        check.keep_types()
    return min(len(sources), FILES)


def assumed_tokens_per_s(spec: EncoderSpec, device: str) -> float:
    """Estimate what one replica encodes from the FLOPs of a token (without attention scores) and an assumed rate."""
    return assumed_flops_per_s(device, spec.dtype) / spec.flops_per_token


def _first_documents(config: JobConfig, sources: list[SourceFile], rows: int) -> Documents:
    files = CorpusFiles(config.input.uri)
    rule = RowRule(config.input, config.encoder.prompt)
    collect, check = Collector(rule, {}), ColumnCheck(config.input, rule)
    wanted = min(rows, config.input.limit or rows)
    size = SIZE_BYTES * max(rows // ROWS, 1)
    for source in sources[:FILES]:
        left = wanted - len(collect.documents.texts)
        if left <= 0:
            break
        reader = reader_of(source, config.input)
        inspected = reader.inspect(files, source, CutLimits(rows=left, size_bytes=size, total_rows=left))
        check.add(source, inspected.columns)
        first = inspected.slices[0]
        for _ in reader.read(files, iter([first]), collect):
            size = max(size - first.size_bytes, 1)
    return collect.take()


def _timed(preparer: Preparer, texts: list[str], prompts: list[str] | None) -> tuple[PreparedTexts, float]:
    """Tokenize; the CPU seconds of this process, which other processes disturb less than the clock."""
    preparer.prepare(texts[:WARM_UP_ROWS], prompts[:WARM_UP_ROWS] if prompts else None)
    started = time.process_time()
    prepared = preparer.prepare(texts, prompts)
    return prepared, max(time.process_time() - started, 1e-6)
