"""From a folder's tokenizer files to the tokenizer that transformers makes of them.

For a few classes transformers goes by tokenizer_config.json and the class, not by all of tokenizer.json;
those rules are repeated here, so that the preparing half needs neither torch nor one version of transformers. They hold
for the kind of tokenizer that a class is of: a file of another kind below its name is read as it was published.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from pipeline.encoders.base import EncoderSpec
from pipeline.encoders.files import layout
from pipeline.encoders.tokens.cutting import QWEN_WORDS
from pipeline.exceptions import ModelError

_CLASSES = {
    "bert": "BertTokenizer",
    "electra": "ElectraTokenizer",
    "distilbert": "DistilBertTokenizer",
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "t5": "T5Tokenizer",
    "mt5": "T5Tokenizer",
    "nomic_bert": "BertTokenizer",
    "qwen3": "Qwen2Tokenizer",
    "gpt_neo": "GPT2Tokenizer",
    "gptj": "GPT2Tokenizer",
}
"""What transformers takes where tokenizer_config.json names no class."""
_KINDS = {
    "BertTokenizer": models.WordPiece,
    "ElectraTokenizer": models.WordPiece,
    "DistilBertTokenizer": models.WordPiece,
    "MPNetTokenizer": models.WordPiece,
    "RobertaTokenizer": models.BPE,
    "GPT2Tokenizer": models.BPE,
    "Qwen2Tokenizer": models.BPE,
    "T5Tokenizer": models.Unigram,
    "XLMRobertaTokenizer": models.Unigram,
}
_ENDED = ("LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "CohereTokenizer")
"""Classes that transformers 4 gave the tokens of `add_bos_token` and `add_eos_token`, whatever tokenizer.json said."""
_OF_VOCABULARY = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer")
_SPECIAL = ("unk", "sep", "pad", "cls", "mask")
_TOKEN_KEYS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
_BY_CODE = ("BertJapaneseTokenizer", "PhobertTokenizer", "BertweetTokenizer")
"""Classes that split a text by code of their own first, which no tokenizer.json holds."""


def load_tokenizer(spec: EncoderSpec) -> Tokenizer:
    """Load a model's tokenizer, without limit or padding.

    Raises:
        ModelError: a file cannot be read, or asks for what embatch does not do.
    """
    config = _config(spec)
    name = _class_name(config, spec.model_type)
    tokenizer = _read(spec, name, config)
    # a published file may truncate and pad by itself
    tokenizer.no_truncation()
    tokenizer.no_padding()
    _apply_class(tokenizer, name, config)
    _add_named(tokenizer, config)
    if spec.lower_case:
        inner = [tokenizer.normalizer] if tokenizer.normalizer else []
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *inner])
    if config.get("add_eos_token") and not tokenizer.encode("a").special_tokens_mask[-1]:
        _add_ends(spec.model, tokenizer, name, config)
    return tokenizer


def _read(spec: EncoderSpec, class_name: str, config: dict[str, Any]) -> Tokenizer:
    """Read tokenizer.json, or make BERT's tokenizer of its vocabulary alone."""
    folder = Path(spec.folder)
    read = layout.TOKENIZER if (folder / layout.TOKENIZER).is_file() else layout.VOCABULARY
    if read == layout.VOCABULARY and class_name not in _OF_VOCABULARY:
        reason = f"only {read}, of which embatch makes BERT's tokenizer and not a {class_name or spec.model_type}"
        raise ModelError(spec.model, f"no {layout.TOKENIZER} in its folder, {reason}")
    try:
        if read == layout.TOKENIZER:
            return Tokenizer.from_file(str(folder / read))
        special = {key: _content(config.get(f"{key}_token", f"[{key.upper()}]")) for key in _SPECIAL}
        tokenizer = Tokenizer(models.WordPiece.from_file(str(folder / read), unk_token=special["unk"]))
        tokenizer.add_special_tokens(list(special.values()))
        numbers = tokenizer.get_vocab()
        sep, cls = ((special[key], numbers[special[key]]) for key in ("sep", "cls"))
        tokenizer.post_processor = processors.BertProcessing(sep, cls)
    except Exception as error:  # the library raises nothing narrower
        raise ModelError(spec.model, f"cannot read {read}: {error}") from error
    return tokenizer


def _config(spec: EncoderSpec) -> dict[str, Any]:
    path = Path(spec.folder) / "tokenizer_config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ModelError(spec.model, f"cannot read {path.name}: {error}") from error
    if config.get("auto_map"):
        raise ModelError(spec.model, "its tokenizer_config.json names code of its own; embatch runs none of tokenizers")
    if (named := config.get("tokenizer_class")) in _BY_CODE:
        raise ModelError(spec.model, f"its {named} splits texts by code of its own, which tokenizer.json lacks")
    if config.get("truncation_side", "right") != "right":
        raise ModelError(spec.model, "its tokenizer cuts texts off at their beginning; embatch cuts at the end only")
    return config


def _class_name(config: dict[str, Any], model_type: str) -> str:
    named = str(config.get("tokenizer_class") or _CLASSES.get(model_type, ""))
    return named.removesuffix("Fast")


def _apply_class(tokenizer: Tokenizer, class_name: str, config: dict[str, Any]) -> None:
    kind = _KINDS.get(class_name)
    if kind is None or not isinstance(tokenizer.model, kind):
        return  # such as the SentencePiece of paraphrase-multilingual-MiniLM, a BERT
    if kind is models.WordPiece:
        if not isinstance(tokenizer.normalizer, normalizers.BertNormalizer | None):
            return
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
    else:
        # older files differ in what white space at the end of a text becomes
        tokenizer.normalizer = _charsmap(tokenizer.normalizer)
        words = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(words)


def _add_named(tokenizer: Tokenizer, config: dict[str, Any]) -> None:
    """Add the tokens that tokenizer_config.json has and tokenizer.json lacks, as transformers does."""
    named: dict[str, dict[str, Any]] = config.get("added_tokens_decoder") or {}
    for _, token in sorted(named.items(), key=lambda item: int(item[0])):
        if tokenizer.token_to_id(token["content"]) is None:
            flags = {key: value for key, value in token.items() if key in _TOKEN_KEYS}
            tokenizer.add_tokens([AddedToken(**flags)])


def _add_ends(model: str, tokenizer: Tokenizer, class_name: str, config: dict[str, Any]) -> None:
    """Add the end token that tokenizer_config.json asks for and tokenizer.json lacks, as transformers 4 does for Llama.

    E5-Mistral and its kin were published for that; transformers 5 leaves it out.
    """
    if class_name not in _ENDED:
        raise ModelError(model, "its tokenizer_config.json adds an end token, but its tokenizer.json does not")
    sample = tokenizer.encode("a")
    start = [token for token, special in zip(sample.tokens, sample.special_tokens_mask, strict=True) if special]
    if not start and config.get("add_bos_token"):
        start = [_content(config.get("bos_token"))]
    around = [*start, _content(config.get("eos_token"))]
    numbers = [tokenizer.token_to_id(token) for token in around]
    if None in numbers:
        reason = f"its tokenizer_config.json adds tokens around a text that its tokenizer.json lacks ({around})"
        raise ModelError(model, reason)
    # a sequence of templates would apply the last alone
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*start, "$A", around[-1]], special_tokens=list(zip(around, numbers, strict=True))
    )


def _content(token: Any) -> str:
    """Return a token's text, which files keep alone or with its flags."""
    return str(token.get("content") if isinstance(token, dict) else token)


def _charsmap(normalizer: Any) -> Any:
    """Return SentencePiece's character map out of a normalizer, None where it has none."""
    steps: Any = normalizer if isinstance(normalizer, normalizers.Sequence) else [normalizer]
    return next((step for step in steps if isinstance(step, normalizers.Precompiled)), None)
