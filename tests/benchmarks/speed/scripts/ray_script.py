"""Ray Data and sentence-transformers as a user would put them together: one actor of one thread a core."""

import json
import os
import sys
import time

import pyarrow.dataset as pads
import ray
from sentence_transformers import SentenceTransformer

source, output, folder = sys.argv[1:]
CORES = os.cpu_count() or 1


class Embed:
    """The actor."""

    def __init__(self):
        self.model = SentenceTransformer(folder, device="cpu")

    def __call__(self, batch):
        batch["began"] = [time.time()] * len(batch["text"])
        batch["embedding"] = self.model.encode(list(batch["text"]), normalize_embeddings=True, show_progress_bar=False)
        return batch


# a Ray of its own; twice the cores, or reading and writing would wait for ever for what the actors hold
ray.init(address="local", num_cpus=2 * CORES, logging_level="ERROR", include_dashboard=False)
ray.data.DataContext.get_current().enable_progress_bars = False
# several blocks an actor, or the first would take all rows of small files
rows = ray.data.read_parquet(source).repartition(4 * CORES)
rows.map_batches(Embed, batch_size=128, concurrency=CORES).write_parquet(output)
ended = time.time()
began = pads.dataset(output).to_table(columns=["began"])["began"].to_pylist()
print(json.dumps({"encoding_seconds": ended - min(began)}))
