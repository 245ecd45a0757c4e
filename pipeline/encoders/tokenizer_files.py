"""From a folder's tokenizer files to the tokenizer that transformers makes of them.

For a few classes transformers goes by tokenizer_config.json and the class, not by all of tokenizer.json;
those rules are repeated here, so that the preparing half needs neither torch nor one version of transformers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

from pipeline.encoders.base import EncoderSpec
from pipeline.encoders.cutting import QWEN_WORDS
from pipeline.exceptions import ModelError

_CLASSES = {
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "t5": "T5Tokenizer",
    "nomic_bert": "BertTokenizer",
    "qwen3": "Qwen2Tokenizer",
    "gpt_neo": "GPT2Tokenizer",
    "gptj": "GPT2Tokenizer",
}
"""What transformers takes where tokenizer_config.json names no class."""


def load_tokenizer(spec: EncoderSpec) -> Tokenizer:
    """Load a model's tokenizer, without limit or padding.

    Raises:
        ModelError: a file cannot be read, or asks for what embatch does not do.
    """
    config = _config(spec)
    try:
        tokenizer = Tokenizer.from_file(str(Path(spec.folder) / "tokenizer.json"))
    except Exception as error:  # the library raises nothing narrower
        raise ModelError(spec.model, f"cannot read tokenizer.json: {error}") from error
    # a published file may truncate and pad by itself
    tokenizer.no_truncation()
    tokenizer.no_padding()
    _apply_class(tokenizer, _class_name(config, spec.model_type), config)
    if spec.lower_case:
        inner = [tokenizer.normalizer] if tokenizer.normalizer else []
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *inner])
    if config.get("add_eos_token") and not tokenizer.encode("a").special_tokens_mask[-1]:
        raise ModelError(spec.model, "its tokenizer_config.json adds an end token, but its tokenizer.json does not")
    return tokenizer


def _config(spec: EncoderSpec) -> dict[str, Any]:
    path = Path(spec.folder) / "tokenizer_config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ModelError(spec.model, f"cannot read {path.name}: {error}") from error
    if config.get("auto_map"):
        raise ModelError(spec.model, "its tokenizer_config.json names code of its own; embatch runs none of tokenizers")
    if config.get("truncation_side", "right") != "right":
        raise ModelError(spec.model, "its tokenizer cuts texts off at their beginning; embatch cuts at the end only")
    return config


def _class_name(config: dict[str, Any], model_type: str) -> str:
    named = str(config.get("tokenizer_class") or _CLASSES.get(model_type, ""))
    return named.removesuffix("Fast")


def _apply_class(tokenizer: Tokenizer, class_name: str, config: dict[str, Any]) -> None:
    if class_name in ("BertTokenizer", "DistilBertTokenizer", "MPNetTokenizer"):
        tokenizer.normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=config.get("tokenize_chinese_chars", True),
            strip_accents=config.get("strip_accents"),
            lowercase=config.get("do_lower_case", True),
        )
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    elif class_name in ("RobertaTokenizer", "GPT2Tokenizer"):
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=config.get("add_prefix_space") or False)
    elif class_name == "Qwen2Tokenizer":
        tokenizer.normalizer = normalizers.NFC()
        spaced = config.get("add_prefix_space") or False
        letters = pre_tokenizers.ByteLevel(add_prefix_space=spaced, use_regex=False)
        words = [pre_tokenizers.Split(Regex(QWEN_WORDS), "isolated"), letters]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(words)
    elif class_name in ("T5Tokenizer", "XLMRobertaTokenizer"):
        # older files differ in what white space at the end of a text becomes
        tokenizer.normalizer = _charsmap(tokenizer.normalizer)
        words = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(words)


def _charsmap(normalizer: Any) -> Any:
    """Return SentencePiece's character map out of a normalizer, None where it has none."""
    steps: Any = normalizer if isinstance(normalizer, normalizers.Sequence) else [normalizer]
    return next((step for step in steps if isinstance(step, normalizers.Precompiled)), None)
