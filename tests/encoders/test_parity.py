"""Our vectors beside those of sentence-transformers on the same folder, one row a family.

INSTRUCTOR's reference is its published algorithm, written down here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from encoders import tiny_models
from encoders.comparing import cosines
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from pipeline.config import EncoderConfig
from pipeline.encoders import registry
from pipeline.encoders.base import EncoderSpec
from pipeline.encoders.precision import Device

CPU = Device(kind="cpu", bf16=True)
NORMALIZE = ("Normalize", {})
INSTRUCTION = "Represent the documentation paragraph for retrieval: "


def pooling(width: int, *modes: str, **config: Any) -> tuple[str, dict[str, Any]]:
    """Return a pooling module as sentence-transformers 6 writes it."""
    return "Pooling", {"embedding_dimension": width, "pooling_mode": list(modes), **config}


def legacy_pooling(width: int, mode: str) -> tuple[str, dict[str, Any]]:
    """Return a pooling module as published models have it."""
    flags = dict.fromkeys(("pooling_mode_cls_token", "pooling_mode_mean_tokens", "pooling_mode_max_tokens"), False)
    return "Pooling", {"word_embedding_dimension": width, **flags, mode: True}


def dense(width: int, out: int, activation: str, *, bias: bool) -> tuple[str, dict[str, Any]]:
    """Return a dense module."""
    dotted = f"torch.nn.modules.{activation}"
    return "Dense", {"in_features": width, "out_features": out, "bias": bias, "activation_function": dotted}


@dataclass(frozen=True, kw_only=True)
class Family:
    """One row of the table: what is written, and what is asked of it; no heads, no module chain."""

    architecture: Callable[[int], transformers.PreTrainedModel] = tiny_models.bert
    tokenizer: str = "word_piece"
    heads: tuple[tuple[str, dict[str, Any]], ...] = ()
    prompt: str | None = None
    limit: int = tiny_models.LIMIT
    lower: bool = False
    count: int = 40
    empty: bool = True
    """Whether its tokenizer makes tokens of an empty text."""
    publish: Callable[[Path], None] | None = None
    """Brings the folder, after the reference has read it, into the form its authors publish."""


MEAN_384 = legacy_pooling(384, "pooling_mode_mean_tokens")
FAMILIES = {
    "bert mean (gte)": Family(heads=(MEAN_384, NORMALIZE), count=120),
    "bert cls (bge)": Family(heads=(legacy_pooling(384, "pooling_mode_cls_token"), NORMALIZE)),
    "bert prompt (e5)": Family(heads=(MEAN_384, NORMALIZE), prompt="query: "),
    "bert, limit 128": Family(heads=(MEAN_384, NORMALIZE), limit=128),
    "contriever": Family(),
    "roberta": Family(
        architecture=tiny_models.roberta, tokenizer="byte_level", heads=(pooling(768, "mean"), NORMALIZE)
    ),
    "xlm-roberta prompt (multilingual-e5)": Family(
        architecture=tiny_models.xlm_roberta,
        tokenizer="unigram_xlm",
        heads=(pooling(768, "mean"), NORMALIZE),
        prompt="passage: ",
    ),
    "distilbert, cased": Family(
        architecture=tiny_models.distilbert, tokenizer="word_piece_cased", heads=(pooling(768, "mean"),)
    ),
    "mpnet": Family(
        architecture=tiny_models.mpnet, tokenizer="word_piece_mpnet", heads=(pooling(768, "mean"), NORMALIZE)
    ),
    "t5 dense (sentence-t5, gtr)": Family(
        architecture=tiny_models.t5,
        tokenizer="unigram_t5",
        heads=(pooling(768, "mean"), dense(768, 768, "linear.Identity", bias=False), NORMALIZE),
    ),
    "any other: llama, lasttoken": Family(
        architecture=tiny_models.llama,
        heads=(pooling(128, "lasttoken"), NORMALIZE),
    ),
    "qwen3 with an instruction (Qwen3-Embedding)": Family(
        architecture=tiny_models.qwen3,
        tokenizer="byte_level_qwen",
        heads=(pooling(256, "lasttoken"), NORMALIZE),
        prompt="Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:",
    ),
    "bloom weightedmean, no brackets": Family(
        architecture=tiny_models.bloom,
        tokenizer="byte_level_bloom",
        heads=(legacy_pooling(256, "pooling_mode_weightedmean_tokens"),),
        limit=300,
        empty=False,
    ),
    "modernbert cls (gte-modernbert)": Family(
        architecture=tiny_models.modernbert,
        tokenizer="byte_level_modernbert",
        heads=(legacy_pooling(384, "pooling_mode_cls_token"),),
    ),
    "nomic prompt": Family(
        architecture=tiny_models.nomic,
        heads=(MEAN_384, NORMALIZE),
        prompt="search_document: ",
        publish=tiny_models.publish_nomic,
    ),
    "eurobert": Family(
        architecture=tiny_models.eurobert,
        tokenizer="byte_level_eurobert",
        heads=(MEAN_384,),
        publish=tiny_models.publish_eurobert,
    ),
    "max": Family(heads=(pooling(384, "max"),)),
    "mean_sqrt_len_tokens": Family(heads=(pooling(384, "mean_sqrt_len_tokens"), NORMALIZE)),
    "weightedmean, prompt excluded": Family(
        heads=(pooling(384, "weightedmean", include_prompt=False),),
        prompt=INSTRUCTION,
    ),
    "lasttoken": Family(heads=(pooling(384, "lasttoken"), NORMALIZE)),
    "cls, max and mean, prompt excluded": Family(
        heads=(pooling(384, "cls", "max", "mean", include_prompt=False),),
        prompt=INSTRUCTION,
    ),
    "dense and layer norm, lower case": Family(
        heads=(MEAN_384, dense(384, 256, "activation.Tanh", bias=True), ("LayerNorm", {"dimension": 256})),
        lower=True,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Built:
    """A family's folder with the reference's vectors."""

    folder: Path
    texts: list[str]
    prompt: str | None
    vectors: np.ndarray


MORE = 500
ROWS = [
    *(pytest.param((family, family.count), id=name) for name, family in FAMILIES.items()),
    *(
        pytest.param((family, MORE), id=f"{name}, {MORE} texts", marks=pytest.mark.slow)
        for name, family in FAMILIES.items()
    ),
]


@pytest.fixture(scope="session", params=ROWS)
def built(request, tmp_path_factory):
    family, count = request.param
    folder = tmp_path_factory.mktemp("model") / "facebook" / "contriever-tiny"
    tiny_models.write_model(folder, family.architecture, family.tokenizer)
    if family.heads:
        tiny_models.write_chain(folder, family.heads, max_seq_length=family.limit, do_lower_case=family.lower)
    texts = [text for text in tiny_models.texts(count) if text or family.empty]
    torch.set_num_threads(1)
    reference = SentenceTransformer(str(folder), device="cpu")
    vectors = reference.encode(texts, prompt=family.prompt, batch_size=4)
    if family.publish is not None:
        family.publish(folder)
    return Built(folder=folder, texts=texts, prompt=family.prompt, vectors=vectors)


def resolve(folder: Path | str, prompt: Any = None, **keys: Any) -> EncoderSpec:
    """Resolve a job's encoder on a processor with bfloat16; float32 unless told otherwise."""
    return registry.resolve(EncoderConfig(model=str(folder), prompt=prompt, **{"dtype": "float32", **keys}), CPU)


def encode(folder: Path | str, texts: list[str], prompt: str | None = None, **keys: Any) -> np.ndarray:
    """Encode with a job's encoder, prepared and encoded apart as a job does it."""
    spec = resolve(folder, prompt, **keys)
    return registry.build_encoder(spec, "cpu", 1).encode(registry.build_preparer(spec).prepare(texts))


def test_float32_vectors_equal_the_references(built):
    automatic = resolve(built.folder, built.prompt).backend
    for backend in {automatic, "padded"}:
        ours = encode(built.folder, built.texts, built.prompt, backend=backend)
        found, delta = cosines(ours, built.vectors), np.abs(ours - built.vectors).max()
        print(f"{backend} float32 min cos {found.min():.9f} max delta {delta:.2e}")
        assert found.min() >= 0.999999
        assert delta <= 1e-5


def test_a_text_alone_has_the_vector_it_has_in_any_batch(built):
    texts = built.texts[:12]
    alone = encode(built.folder, texts, built.prompt, max_batch_tokens=1)
    together = encode(built.folder, texts, built.prompt)
    reordered = encode(built.folder, texts[::-1], built.prompt, max_batch_tokens=300)[::-1]
    lengths = np.linalg.norm(alone, axis=1, keepdims=True)
    assert np.abs((together - alone) / lengths).max() <= 1e-6
    assert np.abs((reordered - alone) / lengths).max() <= 1e-6


def test_bfloat16_vectors_stay_close(built):
    found = cosines(encode(built.folder, built.texts, built.prompt, dtype="bfloat16"), built.vectors)
    print(f"bfloat16 min cos {found.min():.6f} mean {found.mean():.6f}")
    assert found.min() >= 0.9995
    assert found.mean() >= 0.9999


@pytest.mark.parametrize("built", [(FAMILIES["bert cls (bge)"], 40)], indirect=True, ids=["bert cls (bge)"])
def test_float16_vectors_stay_close(built):
    found = cosines(encode(built.folder, built.texts, built.prompt, dtype="float16"), built.vectors)
    print(f"float16 min cos {found.min():.6f} mean {found.mean():.6f}")
    assert found.min() >= 0.9995
    assert found.mean() >= 0.9999


def published_sgpt(folder: Path, texts: list[str], brackets: str, limit: int) -> np.ndarray:
    """Encode texts one by one by the code of SGPT's README and retriever (Muennighoff/sgpt, 37c8bf0)."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    first, last = (tokenizer.encode(bracket, add_special_tokens=False)[0] for bracket in brackets)
    vectors = []
    for text in texts:
        ids = torch.tensor([first, *tokenizer(text)["input_ids"][: limit - 2], last])
        with torch.inference_mode():
            states = model(input_ids=ids[None], attention_mask=torch.ones(1, len(ids))).last_hidden_state[0]
        weights = torch.arange(1, len(ids) + 1).float()[:, None]
        vectors.append((states * weights).sum(0) / weights.sum())
    return torch.stack(vectors).numpy()


@pytest.fixture(scope="module")
def sgpt(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "bigscience" / "sgpt-bloom-7b1-msmarco"
    tiny_models.write_model(folder, tiny_models.bloom, "byte_level_bloom")
    heads = [legacy_pooling(256, "pooling_mode_weightedmean_tokens")]
    tiny_models.write_chain(folder, heads, max_seq_length=300)
    return folder


@pytest.mark.parametrize(("kind", "brackets"), [("query", "[]"), ("document", "{}")])
def test_sgpt_follows_its_published_algorithm(sgpt, kind, brackets):
    texts = ["]{merging]", "[", *tiny_models.texts(50)]
    theirs = published_sgpt(sgpt, texts, brackets, 300)
    ours = encode(sgpt, texts, brackets=kind)
    lengths = np.linalg.norm(theirs, axis=1, keepdims=True)
    assert cosines(ours, theirs).min() >= 0.999999
    assert np.abs((ours - theirs) / lengths).max() <= 1e-5
    rounded = cosines(encode(sgpt, texts, brackets=kind, dtype="bfloat16"), theirs)
    print(f"{kind} float32 min cos {cosines(ours, theirs).min():.9f}; bfloat16 {rounded.min():.6f}")
    assert rounded.min() >= 0.9995


@pytest.mark.parametrize("heads", [(MEAN_384,), (MEAN_384, NORMALIZE)], ids=["plain", "normalised"])
def test_truncated_vectors_equal_the_references(tmp_path, heads):
    """Where the chain ends in Normalize the reference normalises again only when told to, embatch always."""
    tiny_models.write_model(tmp_path, tiny_models.bert, "word_piece")
    tiny_models.write_chain(tmp_path, heads)
    texts, normalized = tiny_models.texts(40), NORMALIZE in heads
    reference = SentenceTransformer(str(tmp_path), device="cpu", truncate_dim=96)
    ours = encode(tmp_path, texts, truncate_dim=96)
    assert ours.shape == (40, 96)
    assert np.abs(ours - reference.encode(texts, normalize_embeddings=normalized, batch_size=4)).max() <= 1e-5
    as_it_is = reference.encode(texts, batch_size=4)
    assert cosines(ours, as_it_is).min() >= 0.999999
    if normalized:
        assert np.linalg.norm(as_it_is, axis=1).max() < 0.99
        assert np.abs(np.linalg.norm(ours, axis=1) - 1).max() < 1e-6


SHORT = [text for text in tiny_models.texts(50) if len(text) < 300]
INSTRUCTIONS = ("", "word", INSTRUCTION, "Represent the sentence:", "a", "  Represent the Docs title;  Input: ")


@pytest.fixture(scope="module")
def instructor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "hkunlp" / "instructor-tiny"
    tiny_models.write_model(folder, tiny_models.instructor, "unigram_t5")
    projection = dense(1024, 768, "linear.Identity", bias=False)
    tiny_models.write_chain(folder, [legacy_pooling(1024, "pooling_mode_mean_tokens"), projection, NORMALIZE])
    return folder


def published_instructor(folder: Path, pairs: list[tuple[str, str]]) -> np.ndarray:
    """Encode [instruction, text] pairs one by one by the algorithm of InstructorEmbedding 1.0.1."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    encoder = transformers.T5EncoderModel.from_pretrained(folder, dtype=torch.float32)
    projection = load_file(folder / "2_Dense/model.safetensors")["linear.weight"]
    vectors = []
    for instruction, text in pairs:
        whole = (instruction + text.strip()).strip()
        ids = tokenizer(whole, truncation=True, max_length=512, return_tensors="pt")["input_ids"]
        context = len(tokenizer(instruction.strip(), truncation=True, max_length=512)["input_ids"]) - 1
        if context <= 1:
            context = 0
        with torch.inference_mode():
            states = encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        mask = torch.ones(len(states))
        mask[:context] = 0
        mean = (states * mask[:, None]).sum(0) / mask.sum().clamp(min=1e-9)
        vectors.append(torch.nn.functional.normalize(projection @ mean, dim=0))
    return torch.stack(vectors).numpy()


def test_instructor_follows_its_published_algorithm(instructor):
    ours = encode(instructor, SHORT[:10], INSTRUCTION)
    theirs = published_instructor(instructor, [(INSTRUCTION, text) for text in SHORT[:10]])
    assert cosines(ours, theirs).min() >= 0.999999
    assert np.abs(ours - theirs).max() <= 1e-5


def test_instructor_takes_an_instruction_per_row(instructor):
    texts = [*SHORT, "long " * 600]
    instructions = [INSTRUCTIONS[row % len(INSTRUCTIONS)] for row in range(len(texts))]
    spec = resolve(instructor, {"column": "instruction"})
    ours = registry.build_encoder(spec, "cpu", 1).encode(registry.build_preparer(spec).prepare(texts, instructions))
    theirs = published_instructor(instructor, list(zip(instructions, texts, strict=True)))
    assert cosines(ours, theirs).min() >= 0.999999
    assert np.abs(ours - theirs).max() <= 1e-5
