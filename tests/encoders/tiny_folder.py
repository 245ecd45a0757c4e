"""Small model folders as their authors publish them, and a hub that serves them on loopback."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WIDTH = 16
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "row", "word", "a", "text"]
BERT = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "hidden_size": WIDTH,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "vocab_size": len(WORDS),
}


def write_model(folder: Path, *, seed: int = 0) -> Path:
    """Write everything but true weights: a BERT's files with mean pooling, Dense and normalisation."""
    write_json(folder / "config.json", BERT)
    write_json(folder / "tokenizer_config.json", {"model_max_length": 32})
    write_json(folder / "1_Pooling/config.json", {"pooling_mode_mean_tokens": True, "include_prompt": True})
    identity = "torch.nn.modules.linear.Identity"
    dense = {"in_features": WIDTH, "out_features": WIDTH, "bias": False, "activation_function": identity}
    write_json(folder / "2_Dense/config.json", dense)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense", "3_Normalize": "Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    write_json(folder / "modules.json", modules)
    weights = np.random.default_rng(seed).normal(size=(WIDTH, WIDTH)).astype(np.float32)
    save_file({"embeddings": weights}, folder / "model.safetensors")
    save_file({"linear.weight": weights}, folder / "2_Dense/model.safetensors")
    tokenizer = Tokenizer(models.WordPiece({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def add_what_does_not_count(folder: Path) -> None:
    """Add what repositories hold besides: code, pickles, copies in other formats, checkpoints."""
    for name in ("pytorch_model.bin", "modeling_own.py", "README.md", "onnx/model.onnx", "model.fp16.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"never read")
    write_json(folder / "onnx/config.json", {})
    write_json(folder / "checkpoint-500/trainer_state.json", {})


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


class Hub:
    """One repository: its commits, the files of each, and what was asked of it."""

    def __init__(self) -> None:
        self.url = ""
        self.commits: dict[str, Path] = {}
        self.branches: dict[str, str] = {}
        self.requests: list[str] = []

    def commit(self, folder: Path, branch: str = "main") -> str:
        """Publish a folder as the newest commit of a branch."""
        sha = hashlib.sha1(str(len(self.commits)).encode()).hexdigest()
        self.commits[sha], self.branches[branch] = folder, sha
        return sha

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        self.requests.append(path)
        _, _, rest = path.partition("owner/tiny")
        if not rest and "owner/tiny" not in path:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if path.startswith("/api/"):
            revision = rest.removeprefix("/revision/") or "main"
        else:
            revision, _, name = rest.removeprefix("/resolve/").partition("/")
        sha = self.branches.get(revision, revision)
        if sha not in self.commits:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        files = {str(file.relative_to(self.commits[sha])): file for file in self.commits[sha].rglob("*.*")}
        if path.startswith("/api/"):
            siblings = [{"rfilename": name} for name in files]
            return 200, {}, json.dumps({"id": "owner/tiny", "sha": sha, "siblings": siblings}).encode()
        content = files[name].read_bytes()
        return 200, {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}, content


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Serve a hub for the length of a block."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply(body=True)

        def do_HEAD(self) -> None:
            self._reply(body=False)

        def _reply(self, *, body: bool) -> None:
            status, headers, content = hub.answer(self.path)
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    yield hub
    server.shutdown()
    server.server_close()
