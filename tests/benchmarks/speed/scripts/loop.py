"""The loop most people start with: sentence-transformers with its defaults, everything in memory."""

import json
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
from sentence_transformers import SentenceTransformer

source, output, folder = sys.argv[1:]
table = pq.read_table(source)
model = SentenceTransformer(folder, device="cpu")
began = time.perf_counter()
vectors = model.encode(table["text"].to_pylist(), normalize_embeddings=True, show_progress_bar=False)
encoding = time.perf_counter() - began
Path(output).mkdir()
pq.write_table(table.append_column("embedding", [list(vectors)]), f"{output}/vectors.parquet")
print(json.dumps({"encoding_seconds": encoding}))
