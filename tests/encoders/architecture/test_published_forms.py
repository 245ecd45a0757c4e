"""Models in the forms their authors publish, beside the published algorithm or sentence-transformers, in float32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from encoders import tiny_models
from encoders.test_parity import NORMALIZE, cosines, dense, encode, legacy_pooling, resolve
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, processors
from torch.nn import functional

from pipeline.encoders.tokens.tokenizer import TextTokenizer

TEXTS = tiny_models.texts(30)
WIDTH = 128
MEAN = legacy_pooling(WIDTH, "pooling_mode_mean_tokens")
CLS = legacy_pooling(WIDTH, "pooling_mode_cls_token")


def bert(vocabulary: int) -> Any:
    return tiny_models.bert(vocabulary, WIDTH, 256, 2)


def edit(path: Path, *without: str, **values: Any) -> None:
    found = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in found.items() if key not in without}))


def by_sentence_transformers(folder: Path, prompt: str | None = None) -> np.ndarray:
    return SentenceTransformer(str(folder), device="cpu").encode(TEXTS, prompt=prompt, batch_size=4)


def agree(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert cosines(ours, theirs).min() >= 0.999999
    assert np.abs(ours - theirs).max() <= 1e-5 * np.linalg.norm(theirs, axis=1).max()


# tokenizers


@pytest.mark.parametrize("without", [["tokenizer_class"], []], ids=["no class named", "BertTokenizer"])
def test_a_sentencepiece_below_a_bert_is_read_as_it_was_published(tmp_path, without):
    """paraphrase-multilingual-MiniLM is a BERT with XLM-R's tokenizer; BERT's rules would leave it no spaces."""
    tiny_models.write_model(tmp_path, bert, "unigram_xlm")
    tiny_models.write_chain(tmp_path, [MEAN], max_seq_length=128)
    theirs = by_sentence_transformers(tmp_path)  # while its class is named
    edit(tmp_path / "tokenizer_config.json", *without, tokenizer_class="BertTokenizer", do_lower_case=True)
    plain = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    plain.no_padding()
    plain.enable_truncation(128)
    prepared = TextTokenizer(resolve(tmp_path)).prepare(TEXTS)
    assert prepared.token_ids.to_pylist() == [token for text in TEXTS for token in plain.encode(text).ids]
    # where both read white space and special tokens alike
    ordinary = [
        row for row, text in enumerate(TEXTS) if text.isascii() and text == " ".join(text.split()) and "<" not in text
    ]
    agree(encode(tmp_path, TEXTS)[ordinary], theirs[ordinary])


def mistral(vocabulary: int) -> Any:
    config = transformers.MistralConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        pad_token_id=2,
    )
    return tiny_models._random(transformers.MistralModel(config))


@pytest.mark.parametrize("starts", [True, False])
def test_a_llamas_end_token_is_added_where_only_its_configuration_asks_for_it(tmp_path, starts):
    """E5-Mistral pools the end token that transformers 4 appended by `add_eos_token`."""
    tiny_models.write_model(tmp_path, mistral, "byte_level_bloom")
    tiny_models.write_chain(tmp_path, [legacy_pooling(WIDTH, "pooling_mode_lasttoken"), NORMALIZE], max_seq_length=64)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if starts:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
        tokenizer.save(str(tmp_path / "tokenizer.json"))
    asked = {"add_bos_token": True, "add_eos_token": True, "bos_token": "<s>", "eos_token": {"content": "</s>"}}
    edit(tmp_path / "tokenizer_config.json", tokenizer_class="LlamaTokenizer", **asked)
    model = transformers.AutoModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    theirs = []
    for text in TEXTS:
        ids = [1, *tokenizer.encode(text, add_special_tokens=False).ids[:62], 2]
        with torch.inference_mode():
            states = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        theirs.append(functional.normalize(states[-1], dim=0))
    agree(encode(tmp_path, TEXTS), torch.stack(theirs).numpy())


# architectures


def new(folder: Path, theta: float, scaling: dict[str, Any] | None, types: int) -> dict[str, torch.Tensor]:
    """Write a GTE as Alibaba publishes it: its own configuration, names and products of several parts in one."""
    tiny_models.write_model(folder, bert, "word_piece")
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    draw = torch.Generator().manual_seed(5)

    def linear(name: str, rows: int, columns: int, *, bias: bool) -> dict[str, torch.Tensor]:
        weights = {f"{name}.weight": torch.randn(rows, columns, generator=draw) * columns**-0.5}
        return weights | ({f"{name}.bias": 0.1 * torch.randn(rows, generator=draw)} if bias else {})

    def norm(name: str) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": 1 + 0.1 * torch.randn(WIDTH, generator=draw), f"{name}.bias": torch.zeros(WIDTH)}

    tensors = linear("embeddings.word_embeddings", vocabulary, WIDTH, bias=False) | norm("embeddings.LayerNorm")
    if types:
        tensors |= linear("embeddings.token_type_embeddings", types, WIDTH, bias=False)
    for layer in ("encoder.layer.0.", "encoder.layer.1."):
        tensors |= linear(f"{layer}attention.qkv_proj", 3 * WIDTH, WIDTH, bias=True)
        tensors |= linear(f"{layer}attention.o_proj", WIDTH, WIDTH, bias=True)
        tensors |= linear(f"{layer}mlp.up_gate_proj", 512, WIDTH, bias=False)
        tensors |= linear(f"{layer}mlp.down_proj", WIDTH, 256, bias=True)
        tensors |= norm(f"{layer}attn_ln") | norm(f"{layer}mlp_ln")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    classes = {"AutoConfig": "configuration.NewConfig", "AutoModel": "modeling.NewModel"}
    published = {
        "architectures": ["NewModel"],
        "auto_map": {kind: f"Alibaba-NLP/new-impl--{name}" for kind, name in classes.items()},
        "hidden_act": "gelu",
        "hidden_size": WIDTH,
        "intermediate_size": 256,
        "layer_norm_eps": 1e-12,
        "layer_norm_type": "layer_norm",
        "logn_attention_clip1": False,
        "logn_attention_scale": False,
        "max_position_embeddings": 8192,
        "model_type": "new",
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "pack_qkv": True,
        "pad_token_id": 0,
        "position_embedding_type": "rope",
        "rope_scaling": scaling,
        "rope_theta": theta,
        "type_vocab_size": types,
        "unpad_inputs": False,
        "use_memory_efficient_attention": False,
        "vocab_size": vocabulary,
    }
    (folder / "config.json").write_text(json.dumps(published))
    tiny_models.write_chain(folder, [CLS, NORMALIZE])
    return tensors


def published_new(tensors: dict[str, torch.Tensor], ids: list[int], theta: float, factor: float) -> torch.Tensor:
    """Run one text by the algorithm of Alibaba-NLP/new-impl (modeling.py), fixed NTK scaling included."""
    heads, size = 2, WIDTH // 2
    frequencies = 1 / ((theta * factor) ** (torch.arange(0, size, 2) / size)) / factor ** (2 / size)
    angles = torch.outer(torch.arange(len(ids)).float(), frequencies).repeat(1, 2)[:, None]

    def rotate(x: torch.Tensor) -> torch.Tensor:
        turned = torch.cat([-x[..., size // 2 :], x[..., : size // 2]], -1)
        return x * angles.cos() + turned * angles.sin()

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.linear(x, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.layer_norm(x, (WIDTH,), tensors[f"{name}.weight"], tensors[f"{name}.bias"], 1e-12)

    x = tensors["embeddings.word_embeddings.weight"][ids]
    if "embeddings.token_type_embeddings.weight" in tensors:
        x = x + tensors["embeddings.token_type_embeddings.weight"][0]
    x = norm(x, "embeddings.LayerNorm")
    for layer in ("encoder.layer.0.", "encoder.layer.1."):
        query, key, value = (part.view(-1, heads, size) for part in linear(x, f"{layer}attention.qkv_proj").chunk(3, 1))
        query, key, value = (part.transpose(0, 1) for part in (rotate(query), rotate(key), value))
        mixed = ((query @ key.transpose(1, 2)) * size**-0.5).softmax(-1) @ value
        attended = linear(mixed.transpose(0, 1).flatten(1), f"{layer}attention.o_proj")
        x = norm(x + attended, f"{layer}attn_ln")
        up, gate = linear(x, f"{layer}mlp.up_gate_proj").chunk(2, 1)
        x = norm(x + linear(functional.gelu(gate) * up, f"{layer}mlp.down_proj"), f"{layer}mlp_ln")
    return functional.normalize(x[0], dim=0)


@pytest.mark.parametrize(
    ("theta", "scaling", "types"),
    [(500_000, {"factor": 2.0, "type": "ntk"}, 0), (20_000, {"factor": 8.0, "type": "ntk"}, 1), (160_000, None, 1)],
    ids=["gte-base-en-v1.5", "gte-multilingual-base", "snowflake-arctic-embed-m-v2.0"],
)
@pytest.mark.parametrize("backend", ["packed", "padded"])
def test_gte_follows_its_published_algorithm(tmp_path, theta, scaling, types, backend):
    tensors = new(tmp_path, theta, scaling, types)
    spec = resolve(tmp_path, backend=backend)
    assert (spec.remote_code, spec.max_seq_length) == (False, 512)
    prepared = TextTokenizer(spec).prepare(TEXTS)
    texts = np.split(np.asarray(prepared.token_ids), np.cumsum(prepared.n_tokens)[:-1])
    factor = (scaling or {"factor": 1.0})["factor"]
    theirs = torch.stack([published_new(tensors, ids.tolist(), theta, factor) for ids in texts]).numpy()
    agree(encode(tmp_path, TEXTS, backend=backend), theirs)


def gemma(vocabulary: int) -> Any:
    config = transformers.Gemma3TextConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=64,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        sliding_window=64,
        use_bidirectional_attention=True,
        max_position_embeddings=2048,
        pad_token_id=0,
    )
    return tiny_models._random(transformers.Gemma3TextModel(config))


def test_embedding_gemma_runs_with_both_its_dense_layers(tmp_path):
    tiny_models.write_model(tmp_path, gemma, "byte_level_eurobert")
    wide, narrow = (dense(*sizes, "linear.Identity", bias=False) for sizes in ((WIDTH, 512), (512, WIDTH)))
    tiny_models.write_chain(tmp_path, [MEAN, wide, narrow, NORMALIZE])
    prompt = "title: none | text: "
    agree(encode(tmp_path, TEXTS, prompt), by_sentence_transformers(tmp_path, prompt))


def test_a_multilingual_t5_runs_by_its_encoder(tmp_path):
    def mt5(vocabulary: int) -> Any:
        sizes = {"d_model": WIDTH, "d_ff": 256, "num_layers": 2, "num_heads": 2, "d_kv": 64}
        return transformers.MT5EncoderModel(transformers.MT5Config(vocab_size=vocabulary, **sizes))

    tiny_models.write_model(tmp_path, mt5, "unigram_t5")
    edit(tmp_path / "config.json", is_encoder_decoder=True)  # as that of a whole mT5
    tiny_models.write_chain(tmp_path, [MEAN, NORMALIZE])
    agree(encode(tmp_path, TEXTS), by_sentence_transformers(tmp_path))


@pytest.mark.parametrize("kind", ["ConvBert", "FNet", "Nystromformer", "Yoso"])
def test_where_tokens_see_padding_there_is_none(tmp_path, kind):
    """The reference's vectors depend on its batch: those of a text alone are meant."""

    def model(vocabulary: int) -> Any:
        sizes = {"hidden_size": WIDTH, "intermediate_size": 256, "num_hidden_layers": 2, "embedding_size": WIDTH}
        sizes |= {"num_attention_heads": 2, "max_position_embeddings": 514, "use_expectation": True}
        config = getattr(transformers, f"{kind}Config")(vocab_size=vocabulary, pad_token_id=0, **sizes)
        return tiny_models._random(getattr(transformers, f"{kind}Model")(config))

    tiny_models.write_model(tmp_path, model, "word_piece")
    edit(tmp_path / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    tiny_models.write_chain(tmp_path, [MEAN], max_seq_length=128)
    theirs = SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS, batch_size=1)
    agree(encode(tmp_path, TEXTS), theirs)


def test_a_bert_that_attends_to_what_came_before_does_so(tmp_path):
    tiny_models.write_model(tmp_path, bert, "word_piece")
    edit(tmp_path / "config.json", is_decoder=True)
    tiny_models.write_chain(tmp_path, [MEAN])
    assert resolve(tmp_path).backend == "padded"
    agree(encode(tmp_path, TEXTS), by_sentence_transformers(tmp_path))


def test_a_roberta_whose_configuration_names_no_padding_token_has_its_default(tmp_path):
    tiny_models.write_model(tmp_path, lambda size: tiny_models.roberta(size, 48), "byte_level")
    edit(tmp_path / "config.json", "pad_token_id")
    tiny_models.write_chain(tmp_path, [legacy_pooling(48, "pooling_mode_mean_tokens")])
    agree(encode(tmp_path, TEXTS), by_sentence_transformers(tmp_path))


# chains, and models without one


def test_a_pooling_without_a_mode_is_the_mean_and_a_dot_is_the_folder_itself(tmp_path):
    tiny_models.write_model(tmp_path, bert, "word_piece")
    tiny_models.write_chain(tmp_path, [("Pooling", {"word_embedding_dimension": WIDTH}), NORMALIZE])
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules[0]["path"] = "."
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    assert resolve(tmp_path).pooling == "mean"
    agree(encode(tmp_path, TEXTS), by_sentence_transformers(tmp_path))


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize("name", ["sup-simcse-bert-base-uncased", "unsup-simcse-bert-base-uncased"])
def test_simcse_goes_through_its_pooler_where_it_was_trained_to(tmp_path, name, prefix):
    folder = tmp_path / "princeton-nlp" / name
    tiny_models.write_model(folder, bert, "word_piece")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    theirs = []
    for text in TEXTS:
        with torch.inference_mode():
            found = model(**tokenizer(text, truncation=True, max_length=512, return_tensors="pt"))
        theirs.append(found.last_hidden_state[0, 0] if name.startswith("un") else found.pooler_output[0])
    weights = load_file(folder / "model.safetensors")
    save_file({prefix + key: value for key, value in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    agree(encode(folder, TEXTS), torch.stack(theirs).numpy())


def test_nomic_is_truncated_after_a_layer_norm(tmp_path):
    folder = tmp_path / "nomic-ai" / "nomic-embed-text-v1.5"
    tiny_models.write_model(folder, lambda size: tiny_models.nomic(size, WIDTH), "word_piece")
    tiny_models.write_chain(folder, [MEAN, NORMALIZE])
    whole = torch.from_numpy(by_sentence_transformers(folder, "search_document: "))
    theirs = functional.normalize(functional.layer_norm(whole, (WIDTH,))[:, :32], dim=1).numpy()
    ours = encode(folder, TEXTS, "search_document: ", truncate_dim=32)
    agree(ours, theirs)
    assert cosines(ours, whole[:, :32].numpy()).min() < 0.9999
