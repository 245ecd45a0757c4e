"""Model folders as their authors publish them: true architecture and tokenizer type, random weights, few layers.

Tokenizers are trained on the demo corpus. Weights come from a fixed seed, biases and norms included, with
scores wide enough that attention is not uniform.
"""

from __future__ import annotations

import base64
import functools
import gzip
import json
import random
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = Path(__file__).parents[2] / "jobs/demo/corpus"
VOCABULARY = 6000
LIMIT = 512
CHARSMAP = zlib.decompress(
    base64.b64decode(
        "eNpN1AlUVFUcx/Efd6qHW/u+mZmZmRmZqZkZKRqZGRkpGZmZpqYGZibm8tgZdpB9UTE0NTAxNVHUkjbL9r1sMVu03Xbav3c49xw553P+7743b9"
        "7McH8/hUs6T+pwjtTxBKnTKVLnDlKXLlKY5O8daJR8tLTbHotjXvcsx+l9ZP98f7xRMI6DcKOcGGasQq8v4HBXpBRgsvQ98LZ+J/DW/nHgcf5J"
        "4JH+aWjYZ3QG8yw0Nko8yu+KFc1SN2Z39EBP9EJv8DH8vljzkdSyV9qhoxTBenuCUT9mfwzAIAzGEAwFH80fhiiMRDRGYTTGwH6Vse1fxx8H+x"
        "UnIB4TMQmTMQX3Yjruwyzcj0Q8gAfxEJLwMBZhCZKRan9HZCKIHOShGCUoQwWq7POyjGqYy+zvYZ/bYLSSWY/V9vtjnf0NsR4bsBGbsAVbsQ0t"
        "2ImnsJB/IJ9HyfFGfBalzjJKQfoiozRkcpyBINezkNNolI28OqPcZqOCVUb5KDpkVLjfaGmbUTGzlHUJs7zSqIxZyWsrNhtVB42qmoxqOV9TZL"
        "Sc9TJmXZLRikSjR4IBrWSuqgyoviigR1mvZq5tDmhNU0CPsV7HbOR6A+cfZ72e2dQW0IbDAT3BeiNzM9c3cf5J1luYzdy/lfu2s97G3MH1Fs7v"
        "Yr2Tyd5WK/hN9DSew/N4RqG9rhfxEnaHh2kP8xW8CrabXsYbeBOv4XW8g3fxFt7GB/gQ7+F9fIxPsA9sW32GA/gU+/ElvsLn+KE+TF8zv7GvKw"
        "nTgYNh+t6ex7f4Dj/hZ/yIw/gNv+MX/Io/8Rf+QBv+xX/4G/+o/Y+sk+5QXkmQRGZ1DMitbEWQXXUE+VVnkGEdC3Ks40GWdSLIs04GmdapINc6"
        "HeRaZ4Js62yFsq1z0bW9fmy+dT7IuC4AOdeFIOu6CORdF4PM6xLY+rkUZF+XgczrcpB5XQFyrytB9jUQ5F9XgQ7Q1aAHdA3oAl0L+kDXgU7QcN"
        "ALGgG6QdeDftANoCN0I+gJ3QS6QjeDvtAtoDN0K+gN3Qa6Q+NBf+h20CG6A/SI7gRdortAn+hu0Cm6B/SKpoJu0TTQL5oBOkYzQc9oNugaJYC+"
        "0RzQOZoLekfzQPdoPugfLQAdJJf7xVhiS9x2AFJsByAN9JIyQDcpC/STskFHKRf0lPIV6nkVogj0lpaC7lIp6C+Vgw5TJegxVYMeUy3oMi2390"
        "R7Ko70VMQsjPBUzixjXcosifFUzaxiXcmsSPTUYO9lXcu6huupHKc0e0pu8uQzM1lnxHlK51oaM4d1dpKnIPdmMQu4Lz/KU16sp1y43LsecLl3"
        "PfAC9hzRAy73rgdc7l0PuNy7HnC5dz3gcu96wOXe9YDN/RdH9MBBHILrAZd71wMu964HXO5dD7jcux5wuXc9QAC7Eb7uBK8HoetJ4HoRtt4ErQ"
        "8h60vAIghXP4LVn1ANIFCDCNNggjSEEA0lQJGEZxjBiSI0IwlMNGEZRVBGE5IxBCSGcIwlGLGEYhyBiCMMEwhCPCGYSAAmsfkns/GnsOmnTmfX"
        "T2PHz2C3z2Snz2aXJ7DD57C757Kz57Gr57OjF7CbF7KTF6u1Tq1r9T9mLp8X"
    )
)
"""SentencePiece's form of a few rules: full width to ASCII, odd white space to a space, fi, é and á composed."""


def corpus() -> list[str]:
    """Return the paragraphs of the demo corpus that are kept as JSON Lines."""
    plain = (path.read_bytes() for path in sorted(CORPUS.glob("*/*.jsonl")))
    zipped = (gzip.decompress(path.read_bytes()) for path in sorted(CORPUS.glob("*/*.jsonl.gz")))
    return [json.loads(line)["text"] for data in (*plain, *zipped) for line in data.splitlines()]


ODDITIES = [
    "",
    " ",
    "a",
    "!",
    "\u2028",
    "é",
    "e\u0301 combining, and the ligature \ufb01",
    "smile \U0001f600 and a family \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd, \u0645\u0631\u062d\u0628\u0627",
    "\u7e41\u9ad4\u4e2d\u6587\u6ca1\u6709\u7a7a\u683c \u65e5\u672c\u8a9e \ud55c\uad6d\uc5b4",
    "tab\tnew\nline\r\nform\x0cfeed vertical\x0btab nel\x85 unit\x1fseparator null\x00 bell\x07",
    "no\u00a0break thin\u2009space ideographic\u3000space zero\u200bwidth soft\u00adhyphen bom\ufeff",
    "ΣΊΣΥΦΟΣ İstanbul ǅungla STRASSE ß",
    "  leading and trailing white space \n",
    "don't we'll it's  two  spaces   three",
    "special [SEP] </s> <mask> [MASK] <pad> <extra_id_0> tokens",
    "x" * 130,
    "Donaudampfschifffahrtsgesellschaftskapitän" * 4,
    "\U0001f600" * 300,
    "1 2 3 " * 400,
]


def texts(count: int, seed: int = 7) -> list[str]:
    """Return texts of 1 to over 512 tokens, in random order: oddities, paragraphs, runs of paragraphs."""
    draw = random.Random(seed)
    paragraphs = [text for text in corpus() if len(text) < 160]
    chosen = draw.sample(paragraphs, count - len(ODDITIES) - count // 20)
    runs = [" ".join(draw.sample(paragraphs, draw.choice((5, 10, 50)))) for _ in range(count // 20)]
    found = [*ODDITIES, *chosen, *runs]
    draw.shuffle(found)
    return found


def word_piece(special: dict[str, str], *, lowercase: bool = True) -> Tokenizer:
    """Train BERT's tokenizer; `special` names its pad, unk, cls, sep and mask tokens."""
    tokenizer = Tokenizer(models.WordPiece(unk_token=special["unk"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY, special_tokens=list(special.values()), show_progress=False
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    cls, sep = ((special[name], tokenizer.token_to_id(special[name])) for name in ("cls", "sep"))
    tokenizer.post_processor = processors.BertProcessing(sep, cls)
    return tokenizer


def byte_level() -> Tokenizer:
    """Train RoBERTa's tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS = {
    "bloom": r" ?[^(\s|[.,!?" + "\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c" + r"])]+",
    "qwen": _QWEN_WORDS,
    "llama": _QWEN_WORDS.replace(r"|\p{N}|", r"|\p{N}{1,3}|"),
}
"""How published tokenizers split a text into words."""


def byte_level_words(words: str | None, special: list[str], single: list[str], *, nfc: bool = False) -> Tokenizer:
    """Train byte-level BPE over words of a pattern, GPT-2's when None; `single` is a text among its special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.decoder = decoders.ByteLevel()
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words is None)
    tokenizer.pre_tokenizer = letters
    if words is not None:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(WORDS[words]), "isolated"), letters]
        )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in single if token != "$A"]
    template = processors.TemplateProcessing(single=single, special_tokens=ends)
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


def byte_level_modernbert() -> Tokenizer:
    """Train ModernBERT's tokenizer, whose runs of spaces are tokens of their own."""
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    tokenizer = byte_level_words(None, special, ["[CLS]", "$A", "[SEP]"], nfc=True)
    tokenizer.add_tokens([AddedToken(" " * count, normalized=True) for count in range(8, 1, -1)])
    return tokenizer


def unigram(special: list[str], *, start: bool) -> Tokenizer:
    """Train SentencePiece's unigram tokenizer as T5 has it, or with `start` as older files of XLM-RoBERTa have it."""
    tokenizer = Tokenizer(models.Unigram())
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="always")
    charsmap = normalizers.Precompiled(CHARSMAP)
    if start:
        tokenizer.normalizer = normalizers.Sequence([charsmap, normalizers.Replace(Regex(" {2,}"), " ")])
        tokenizer.pre_tokenizer = metaspace
    else:
        tokenizer.normalizer = charsmap
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in (["<s>"] if start else []) + ["</s>"]]
    single = ["<s>", "$A", "</s>"] if start else ["$A", "</s>"]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=ends)
    return tokenizer


BERT_SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
MPNET_SPECIAL = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "[UNK]", "mask": "<mask>"}
T5_SPECIAL = ["<pad>", "</s>", "<unk>"]
XLM_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
BLOOM_SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]
QWEN_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
EUROBERT_SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|mask|>"]

TOKENIZERS: dict[str, tuple[str, Callable[[], Tokenizer]]] = {
    "word_piece": ("BertTokenizer", lambda: word_piece(BERT_SPECIAL)),
    "word_piece_cased": ("DistilBertTokenizer", lambda: word_piece(BERT_SPECIAL, lowercase=False)),
    "word_piece_mpnet": ("MPNetTokenizer", lambda: word_piece(MPNET_SPECIAL)),
    "byte_level": ("RobertaTokenizer", byte_level),
    "byte_level_bloom": ("BloomTokenizerFast", lambda: byte_level_words("bloom", BLOOM_SPECIAL, ["$A"])),
    "byte_level_qwen": (
        "Qwen2Tokenizer",
        lambda: byte_level_words("qwen", QWEN_SPECIAL, ["$A", "<|endoftext|>"], nfc=True),
    ),
    "byte_level_modernbert": ("PreTrainedTokenizerFast", byte_level_modernbert),
    "byte_level_eurobert": (
        "PreTrainedTokenizerFast",
        lambda: byte_level_words("llama", EUROBERT_SPECIAL, ["<|begin_of_text|>", "$A", "<|end_of_text|>"]),
    ),
    "unigram_xlm": ("XLMRobertaTokenizer", lambda: unigram(XLM_SPECIAL, start=True)),
    "unigram_t5": ("T5Tokenizer", lambda: unigram(T5_SPECIAL, start=False)),
}


TOKENIZER_KEYS = {
    "byte_level_bloom": {"pad_token": "<pad>", "padding_side": "left"},
    "byte_level_qwen": {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>", "padding_side": "left"},
    "byte_level_modernbert": {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"},
    "byte_level_eurobert": {"pad_token": "<|end_of_text|>", "bos_token": "<|begin_of_text|>"},
}


@functools.cache
def train_tokenizer(kind: str) -> str:
    """Train a tokenizer; return it as JSON, with the truncation and padding that published ones hold."""
    tokenizer = TOKENIZERS[kind][1]()
    tokenizer.enable_truncation(128)
    tokenizer.enable_padding(length=128)
    return tokenizer.to_str()


def write_tokenizer(kind: str, folder: Path) -> int:
    """Write a tokenizer's files; return the size of its vocabulary."""
    (folder / "tokenizer.json").write_text(train_tokenizer(kind), encoding="utf-8")
    config = {"tokenizer_class": TOKENIZERS[kind][0], "model_max_length": LIMIT}
    if kind.startswith("word_piece"):
        config["do_lower_case"] = kind != "word_piece_cased"
    if kind == "unigram_t5":
        config["extra_ids"] = 0
    config |= TOKENIZER_KEYS.get(kind, {})
    _write(folder / "tokenizer_config.json", config)
    return Tokenizer.from_str(train_tokenizer(kind)).get_vocab_size()


def bert(
    vocabulary: int, width: int = 384, inner: int = 1536, heads: int = 12, layers: int = 2
) -> transformers.PreTrainedModel:
    """gte-small, e5-small, bge-small, and Contriever but for its width."""
    sizes = {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": inner}
    config = transformers.BertConfig(vocab_size=vocabulary, num_hidden_layers=layers, **sizes)
    return _random(transformers.BertModel(config))


def distilbert(vocabulary: int) -> transformers.PreTrainedModel:
    """distilbert-base."""
    return _random(transformers.DistilBertModel(transformers.DistilBertConfig(vocab_size=vocabulary, n_layers=2)))


def _roberta_sizes(vocabulary: int, width: int = 768, layers: int = 2) -> dict[str, Any]:
    positions = {"max_position_embeddings": 514, "layer_norm_eps": 1e-5}
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    return {"vocab_size": vocabulary, "hidden_size": width, "num_hidden_layers": layers, **positions, **ids}


def roberta(vocabulary: int, width: int = 768) -> transformers.PreTrainedModel:
    """roberta-base, as in all-distilroberta-v1."""
    config = transformers.RobertaConfig(type_vocab_size=1, **_roberta_sizes(vocabulary, width))
    return _random(transformers.RobertaModel(config))


def xlm_roberta(vocabulary: int) -> transformers.PreTrainedModel:
    """multilingual-e5-base."""
    config = transformers.XLMRobertaConfig(type_vocab_size=1, **_roberta_sizes(vocabulary))
    return _random(transformers.XLMRobertaModel(config))


def mpnet(vocabulary: int, width: int = 768, layers: int = 2) -> transformers.PreTrainedModel:
    """all-mpnet-base-v2."""
    return _random(transformers.MPNetModel(transformers.MPNetConfig(**_roberta_sizes(vocabulary, width, layers))))


def llama(vocabulary: int) -> transformers.PreTrainedModel:
    """A family of the general rule: causal, rotary positions, grouped heads; at a small width."""
    sizes = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 256}
    config = transformers.LlamaConfig(vocab_size=vocabulary, num_hidden_layers=2, pad_token_id=0, **sizes)
    return _random(transformers.LlamaModel(config))


def qwen3(vocabulary: int, width: int = 256) -> transformers.PreTrainedModel:
    """Qwen3-Embedding-0.6B at a quarter of its width: heads wider together than the model, two queries to a key."""
    sizes = {"hidden_size": width, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 128}
    config = transformers.Qwen3Config(
        vocab_size=vocabulary,
        intermediate_size=3 * width,
        num_hidden_layers=2,
        pad_token_id=0,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        max_position_embeddings=32_768,
        tie_word_embeddings=True,
        **sizes,
    )
    return _random(transformers.Qwen3Model(config))


def bloom(vocabulary: int, width: int = 256) -> transformers.PreTrainedModel:
    """sgpt-bloom-7b1-msmarco at a sixteenth of its width."""
    config = transformers.BloomConfig(vocab_size=vocabulary, hidden_size=width, n_layer=2, n_head=8, pad_token_id=3)
    return _random(transformers.BloomModel(config))


def modernbert(vocabulary: int, width: int = 384, layers: int = 4) -> transformers.PreTrainedModel:
    """gte-modernbert-base at half its width: two of four layers see 64 tokens to each side."""
    config = transformers.ModernBertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=width * 3 // 2,
        num_attention_heads=width // 64,
        num_hidden_layers=layers,
        pad_token_id=3,
        cls_token_id=1,
        bos_token_id=1,
        sep_token_id=2,
        eos_token_id=2,
    )
    return _random(transformers.ModernBertModel(config))


def nomic(vocabulary: int, width: int = 384) -> transformers.PreTrainedModel:
    """nomic-embed-text-v1.5 at half its width."""
    sizes = {"hidden_size": width, "num_attention_heads": width // 64, "intermediate_size": 4 * width}
    config = transformers.NomicBertConfig(vocab_size=vocabulary, num_hidden_layers=2, **sizes)
    return _random(transformers.NomicBertModel(config))


def eurobert(vocabulary: int) -> transformers.PreTrainedModel:
    """EuroBERT-210m at half its width, with the grouped heads of EuroBERT-610m."""
    config = transformers.EuroBertConfig(
        vocab_size=vocabulary,
        hidden_size=384,
        intermediate_size=1536,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=1,
        mask_token_id=2,
        rope_parameters={"rope_type": "default", "rope_theta": 250_000.0},
    )
    return _random(transformers.EuroBertModel(config))


def publish_nomic(folder: Path) -> None:
    """Put Nomic's own configuration, as nomic-embed-text-v1.5 has it, in the place of transformers'."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    classes = {"AutoConfig": "configuration_hf_nomic_bert.NomicBertConfig", "AutoModel": "modeling_hf_nomic_bert.X"}
    published = {
        "activation_function": "swiglu",
        "architectures": ["NomicBertModel"],
        "attn_pdrop": 0.0,
        "auto_map": {kind: f"nomic-ai/nomic-bert-2048--{name}" for kind, name in classes.items()},
        "causal": False,
        "layer_norm_epsilon": 1e-12,
        "max_trained_positions": 2048,
        "mlp_fc1_bias": False,
        "mlp_fc2_bias": False,
        "model_type": "nomic_bert",
        "n_embd": config["hidden_size"],
        "n_head": config["num_attention_heads"],
        "n_inner": config["intermediate_size"],
        "n_layer": config["num_hidden_layers"],
        "n_positions": 8192,
        "pad_vocab_size_multiple": 64,
        "parallel_block": False,
        "prenorm": False,
        "qkv_proj_bias": False,
        "rotary_emb_base": 1000,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "rotary_emb_scale_base": None,
        "rotary_scaling_factor": None,
        "type_vocab_size": 2,
        "use_cache": True,
        "use_rms_norm": False,
        "vocab_size": config["vocab_size"],
    }
    _write(folder / "config.json", published)


def publish_eurobert(folder: Path) -> None:
    """Name EuroBERT's own code, as its published configurations do."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    classes = {"AutoConfig": "configuration_eurobert.EuroBertConfig", "AutoModel": "modeling_eurobert.EuroBertModel"}
    theta = config.pop("rope_parameters")["rope_theta"]
    _write(folder / "config.json", {**config, "auto_map": classes, "rope_theta": theta, "rope_scaling": None})


def t5(
    vocabulary: int, width: int = 768, inner: int = 3072, heads: int = 12, layers: int = 2
) -> transformers.PreTrainedModel:
    """sentence-t5-base and gtr-t5-base; with other sizes instructor-large."""
    config = transformers.T5Config(
        vocab_size=vocabulary, d_model=width, d_ff=inner, num_heads=heads, num_layers=layers, use_cache=False
    )
    model = transformers.T5EncoderModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "relative_attention_bias" in name:
                parameter.normal_()
            elif parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def instructor(vocabulary: int) -> transformers.PreTrainedModel:
    """instructor-large."""
    return t5(vocabulary, 1024, 4096, 16)


def _random(model: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            else:
                parameter.normal_(std=parameter.shape[1] ** -0.5)
    return model


def write_model(folder: Path, architecture: Callable[[int], transformers.PreTrainedModel], tokenizer: str) -> None:
    """Write a transformer and its tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    architecture(write_tokenizer(tokenizer, folder)).save_pretrained(folder)


def write_chain(folder: Path, heads: Iterable[tuple[str, dict[str, Any]]], **transformer: Any) -> None:
    """Write a module chain; `heads` has each module's class and configuration."""
    modules = [_module(0, "", "Transformer")]
    _write(folder / "sentence_bert_config.json", {"max_seq_length": LIMIT, "do_lower_case": False, **transformer})
    for number, (kind, config) in enumerate(heads, start=1):
        path = f"{number}_{kind}"
        modules.append(_module(number, path, kind))
        (folder / path).mkdir()
        _write(folder / path / "config.json", config)
        if kind == "Dense":
            shape = (config["out_features"], config["in_features"])
            weights = {"linear.weight": torch.randn(shape, generator=_seed()) * shape[1] ** -0.5}
            if config["bias"]:
                weights["linear.bias"] = torch.randn(shape[:1], generator=_seed())
            save_file(weights, folder / path / "model.safetensors")
        if kind == "LayerNorm":
            width = config["dimension"]
            weights = {"norm.weight": torch.rand(width, generator=_seed()), "norm.bias": torch.ones(width)}
            save_file(weights, folder / path / "model.safetensors")
    _write(folder / "modules.json", modules)


def _module(number: int, path: str, kind: str) -> dict[str, Any]:
    return {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}


def _seed() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def _write(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")
