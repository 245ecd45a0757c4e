"""A cache of receipts, so that resume needs no request a shard; the shards remain the truth."""

from __future__ import annotations

import json
import logging
import re
from concurrent.futures import ThreadPoolExecutor

from pipeline.checkpoint import entries
from pipeline.checkpoint.commits import read_receipt
from pipeline.exceptions import DamagedOutputError
from pipeline.fingerprint import canonical_json, sha256
from pipeline.records import Receipt
from pipeline.storage import Store, StoredObject

logger = logging.getLogger(__name__)

FOLDER = "_job/receipts"
READERS = 8
_KEY = re.compile(rf"{FOLDER}/\d{{6}}-\d{{6}}-([0-9a-f]{{12}})\.json")


class ReceiptLog:
    """Writes the receipts of one run in create-only batches."""

    def __init__(self, store: Store, run: int, batch: int) -> None:
        self._store, self._run, self._batch = store, run, batch
        self._waiting: list[Receipt] = []
        self._written = 0

    def add(self, receipt: Receipt) -> None:
        """Take one receipt; every `batch` receipts one object is written."""
        self._waiting.append(receipt)
        if len(self._waiting) >= self._batch:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting."""
        if self._waiting:
            data = canonical_json(entries.to_columns(self._waiting))
            self._store.create(f"{FOLDER}/{self._run:06d}-{self._written:06d}-{sha256(data)[:12]}.json", data)
            self._written += 1
            self._waiting.clear()


def load(store: Store, plan_id: str, present: dict[int, StoredObject]) -> dict[int, Receipt]:
    """Return the receipt of every committed unit: from the cache where it fits, else from the shard."""
    cached: dict[int, Receipt] = {}
    with ThreadPoolExecutor(READERS) as pool:
        named = {stored.key: match[1] for stored in store.list(FOLDER) if (match := _KEY.fullmatch(stored.key))}
        for data, digest in zip(pool.map(store.read, named), named.values(), strict=True):
            for receipt in _parse(data or b"", digest):
                found = present.get(receipt.unit)
                if found and (found.key, found.size) == (receipt.key, receipt.size_bytes):
                    cached[receipt.unit] = receipt
        missing = [unit for unit in present if unit not in cached]
        if missing:
            logger.info("reading %d shards whose receipts were not cached", len(missing))
            read = pool.map(lambda unit: read_receipt(store, present[unit].key, plan_id), missing)
            for unit, found_receipt in zip(missing, read, strict=True):
                if found_receipt is None:
                    raise DamagedOutputError(store.uri, [f"{present[unit].key} was listed and is gone"])
                cached[unit] = found_receipt
    return cached


def _parse(data: bytes, digest: str) -> list[Receipt]:
    """Read a batch that is named by its content; nothing of one that is damaged or of another embatch."""
    try:
        return entries.from_columns(json.loads(data)) if sha256(data).startswith(digest) else []
    except (AttributeError, KeyError, TypeError, ValueError):
        return []  # the shards tell
