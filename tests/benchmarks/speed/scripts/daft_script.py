"""Daft's own embed_text, native runner, provider sentence_transformers' local folder."""

import json
import sys
import time

import daft
from daft.functions import embed_text

source, output, folder = sys.argv[1:]
began = time.perf_counter()
vectors = embed_text(daft.col("text"), provider="transformers", model=folder)
daft.read_parquet(source + "/*.parquet").with_column("embedding", vectors).write_parquet(output)
print(json.dumps({"encoding_seconds": time.perf_counter() - began}))
