"""Token ids beside those of transformers on the same folder, at any length, and what is told of a text."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from encoders import tiny_models
from sentence_transformers import SentenceTransformer

from pipeline.encoders.base import EncoderSpec
from pipeline.encoders.tokens.tokenizer import TextTokenizer
from pipeline.exceptions import ConfigError, ModelError

MODEL_TYPES = {
    "word_piece": "bert",
    "word_piece_cased": "distilbert",
    "word_piece_mpnet": "mpnet",
    "byte_level": "roberta",
    "byte_level_bloom": "bloom",
    "byte_level_qwen": "qwen3",
    "byte_level_modernbert": "modernbert",
    "byte_level_eurobert": "eurobert",
    "unigram_xlm": "xlm-roberta",
    "unigram_t5": "t5",
}
SEPARATORS = (
    " \t\n|\r\n|  | \n|\u00a0|\u3000|\u2028|\x0b|\x0c|\x85|\x1f|\u200b|\ufeff| \u0301|\u0600 |</s>| <mask> |[SEP]"
)
ODD_WORDS = [*tiny_models.ODDITIES[2:9], "'s", "...", "a_b", "2²", "\ufc5e", "\uff21\uff22", "\u2581", "x" * 120]


@pytest.fixture(scope="module", params=MODEL_TYPES)
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    tiny_models.write_tokenizer(request.param, path)
    (path / "config.json").write_text(json.dumps({"model_type": MODEL_TYPES[request.param]}))
    return path


def spec_for(folder: Path, limit: int, **values: Any) -> EncoderSpec:
    """Return the specification of a folder without weights."""
    spec = EncoderSpec(
        kind="transformer",
        model="tiny",
        revision=None,
        folder=str(folder),
        files={},
        model_type=json.loads((folder / "config.json").read_text())["model_type"],
        dimension=1,
        max_seq_length=limit,
        lower_case=False,
        prompt="",
        heads=[],
        dtype="float32",
        backend="padded",
        max_batch_tokens=1,
        flops_per_token=1,
    )
    return replace(spec, **values)


def ids_of(prepared) -> list[list[int]]:
    """Split the flat token ids by text."""
    ends = np.cumsum(prepared.n_tokens)[:-1]
    return [part.tolist() for part in np.split(np.asarray(prepared.token_ids), ends)]


def jumble(count: int) -> list[str]:
    """Return texts in which anything may follow anything, from one word to 400."""
    draw = random.Random(3)
    words = " ".join(tiny_models.corpus()[:200]).split()
    separators = [" "] * 12 + SEPARATORS.split("|")

    def piece() -> str:
        return draw.choice(words if draw.random() < 0.8 else ODD_WORDS) + draw.choice(separators)

    return ["".join(piece() for _ in range(draw.choice((1, 3, 30, 400)))) for _ in range(count)]


@pytest.mark.parametrize("limit", [8, 64, 512])
def test_token_ids_and_accounts_equal_those_of_the_whole_text(folder, limit):
    texts = [*tiny_models.texts(60), *jumble(60)]
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    whole = reference(texts, return_offsets_mapping=True)["offset_mapping"]
    cut = reference(texts, truncation=True, max_length=limit, return_offsets_mapping=True)
    ends = [max((end for _, end in offsets), default=0) for offsets in cut["offset_mapping"]]

    prepared = TextTokenizer(spec_for(folder, limit)).prepare(texts)

    assert ids_of(prepared) == cut["input_ids"]
    assert prepared.rows["truncated"].to_pylist() == [len(tokens) > limit for tokens in whole]
    assert prepared.rows["chars_lost"].to_pylist() == [
        len(text) - end if len(tokens) > limit else 0 for text, tokens, end in zip(texts, whole, ends, strict=True)
    ]


def test_a_text_100_times_over_the_limit_is_tokenized_in_part_and_exactly(folder):
    text = " ".join(tiny_models.corpus())
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer = TextTokenizer(spec_for(folder, 256))

    assert ids_of(tokenizer.prepare([text])) == reference([text], truncation=True, max_length=256)["input_ids"]
    assert len(tokenizer._cutter.prefix(text, 2048)) < 2200 < len(text) // 100


@pytest.mark.parametrize("characters", [1, 3000])
def test_texts_tokenized_in_chunks_are_the_same(folder, monkeypatch, characters):
    texts = [*tiny_models.texts(60), *jumble(60)]
    tokenizer = TextTokenizer(spec_for(folder, 64))
    at_once = tokenizer.prepare(texts)

    monkeypatch.setattr("pipeline.encoders.tokens.tokenizer.CHUNK_CHARACTERS", characters)

    assert tokenizer.prepare(texts) == at_once


def test_no_texts_give_empty_columns(folder):
    prepared = TextTokenizer(spec_for(folder, 64)).prepare([])
    assert [len(column) for column in prepared.rows.values()] == [0] * len(prepared.rows)
    assert prepared.token_ids.type == "int32"
    assert len(prepared.token_ids) == 0


def test_a_limit_that_only_special_tokens_fill_loses_the_whole_text(folder):
    special = len(TextTokenizer(spec_for(folder, 64))._suffix) + 1
    lost = TextTokenizer(spec_for(folder, special)).prepare(["Some words of a text"]).rows["chars_lost"].to_pylist()
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    kept = reference(["Some words of a text"], truncation=True, max_length=special, return_offsets_mapping=True)
    assert lost == [20 - max(end for _, end in kept["offset_mapping"][0])]


def test_a_text_without_spaces_is_never_cut_wrongly(folder):
    texts = ["\u7e41\u9ad4\u4e2d\u6587" * 800, "x" * 5000, "\n".join(["\u00e9t\u00e9"] * 2000), "a\x0cb" * 2000]
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    prepared = TextTokenizer(spec_for(folder, 64)).prepare(texts)
    assert ids_of(prepared) == reference(texts, truncation=True, max_length=64)["input_ids"]


def test_lower_case_lowers_as_sentence_transformers_does(tmp_path):
    tiny_models.write_model(tmp_path, tiny_models.distilbert, "word_piece_cased")
    tiny_models.write_chain(tmp_path, [("Pooling", {"embedding_dimension": 768})], do_lower_case=True)
    texts = [*tiny_models.ODDITIES, "ΑΣ ΣΑ [SEP] Capital Letters"]
    reference = SentenceTransformer(str(tmp_path), device="cpu").tokenize(texts)
    padded = zip(reference["input_ids"], reference["attention_mask"], strict=True)
    expected = [ids[mask.bool()].tolist() for ids, mask in padded]
    prepared = TextTokenizer(spec_for(tmp_path, 512, lower_case=True)).prepare(texts)
    assert ids_of(prepared) == expected


@pytest.mark.parametrize(
    ("pooling", "prompt", "left_out"),
    [("include", "query: ", 0), ("exclude", "query: ", 3), ("exclude", "", 0), ("instructor", "query: ", 3)],
)
def test_prompt_tokens_are_those_that_pooling_leaves_out(tmp_path, pooling, prompt, left_out):
    tokenizer = _t5(tmp_path, prompt_pooling=pooling, prompt=prompt)
    alone = len(tokenizer._tokenizer.encode(prompt.strip()).ids) - 1
    expected = alone if left_out else 0
    assert tokenizer.prepare(["some text"]).rows["prompt_tokens"].to_pylist() == [expected]


def test_instructor_leaves_an_instruction_of_one_token_in(tmp_path):
    tokenizer = _t5(tmp_path, prompt_pooling="instructor")
    assert len(tokenizer._tokenizer.encode("The").ids) == 2
    assert tokenizer.prepare(["x"], ["The"]).rows["prompt_tokens"].to_pylist() == [0]


def test_a_prompt_that_fills_the_limit_leaves_no_room(tmp_path):
    tokenizer = _t5(tmp_path, limit=8, prompt_pooling="instructor")
    fitting, filling = "the the the the the the", "the the the the the the the"
    assert len(tokenizer._tokenizer.encode(filling).ids) == 8
    prepared = tokenizer.prepare(["text", "text", "text"], ["", fitting, filling])
    assert prepared.no_room.tolist() == [False, False, True]


def test_a_prompt_of_unknown_kind_is_refused(tmp_path):
    tokenizer = _t5(tmp_path, prompt_pooling="unknown")
    assert tokenizer.prepare(["text"]).n_tokens[0] > 1
    with pytest.raises(ConfigError, match="prompt_pooling"):
        tokenizer.prepare(["text"], ["query: "])


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"truncation_side": "left"}, "at their beginning"),
        ({"auto_map": {"AutoTokenizer": ["own.Tokenizer", None]}}, "none of tokenizers"),
        ({"add_eos_token": True, "tokenizer_class": "PreTrainedTokenizerFast"}, "adds an end token"),
    ],
)
def test_a_tokenizer_that_would_be_read_wrongly_is_refused(tmp_path, config, reason):
    tiny_models.write_tokenizer("byte_level", tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    plain = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps({**plain, "post_processor": None}))
    with pytest.raises(ModelError, match=reason):
        TextTokenizer(spec_for(tmp_path, 64))


@pytest.mark.parametrize(("brackets", "pair"), [("query", "[]"), ("document", "{}")])
def test_brackets_stand_around_the_tokens_of_a_text_and_count_towards_the_limit(tmp_path, brackets, pair):
    tokenizer = _bloom(tmp_path, 10, brackets=brackets)
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
    first, last = (reference.encode(bracket, add_special_tokens=False)[0] for bracket in pair)
    texts = ["", "]", "}a text]", "one two three four five six seven eight nine ten eleven twelve"]
    whole = reference(texts, return_offsets_mapping=True)
    prepared = tokenizer.prepare(texts)
    assert ids_of(prepared) == [[first, *ids[:8], last] for ids in whole["input_ids"]]
    assert prepared.n_tokens.tolist() == [min(len(ids), 8) + 2 for ids in whole["input_ids"]]
    assert prepared.rows["truncated"].to_pylist() == [len(ids) > 8 for ids in whole["input_ids"]]
    assert prepared.rows["chars_lost"].to_pylist() == [0, 0, 0, len(texts[3]) - whole["offset_mapping"][3][7][1]]


def test_brackets_take_the_place_of_a_prompt(tmp_path):
    with pytest.raises(ConfigError, match=r"encoder\.prompt: encoder\.brackets takes the place"):
        _bloom(tmp_path, 64, brackets="query").prepare(["text"], ["query: "])


def test_a_tokenizer_without_brackets_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no token for each of '\[\]'"):
        _t5(tmp_path, brackets="query")


@pytest.mark.parametrize("kind", ["word_piece", "word_piece_cased"])
def test_a_vocabulary_alone_makes_the_tokenizer_of_bert(tmp_path, kind):
    tiny_models.write_tokenizer(kind, tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    texts = [*tiny_models.texts(30), *jumble(30)]
    whole = TextTokenizer(spec_for(tmp_path, 64)).prepare(texts)
    vocabulary = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.get)))
    found = TextTokenizer(spec_for(tmp_path, 64)).prepare(texts)
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert found == whole
    assert ids_of(found) == reference(texts, truncation=True, max_length=64)["input_ids"]


def test_tokens_that_only_the_configuration_adds_are_tokens(tmp_path):
    size = tiny_models.write_tokenizer("word_piece", tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    flags = {"lstrip": True, "rstrip": False, "normalized": False, "single_word": False}
    added = {str(size + 1): {"content": "{d}", "special": False, **flags, "normalized": True}}
    added |= {str(size): {"content": "[Q]", "special": True, **flags}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "added_tokens_decoder": added}))
    texts = ["[Q] hello  [Q] there", "a {d} and {D}", "[q]"]
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert ids_of(TextTokenizer(spec_for(tmp_path, 64)).prepare(texts)) == reference(texts)["input_ids"]


def test_a_vocabulary_alone_makes_no_other_tokenizer(tmp_path):
    (tmp_path / "vocab.txt").write_text("a\n")
    (tmp_path / "config.json").write_text('{"model_type": "xlm-roberta"}')
    with pytest.raises(ModelError, match=r"only vocab\.txt, of which embatch makes BERT's tokenizer and not a XLMRob"):
        TextTokenizer(spec_for(tmp_path, 64))


def test_a_broken_tokenizer_file_is_refused(tmp_path):
    tiny_models.write_tokenizer("byte_level", tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "roberta"}')
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"cannot read tokenizer\.json"):
        TextTokenizer(spec_for(tmp_path, 64))


def test_preparing_imports_no_torch():
    code = (
        "import sys; from pipeline.config import EncoderConfig; from pipeline.encoders import registry, precision;"
        "config = EncoderConfig(model='packaged:all-MiniLM-L6-v2');"
        "spec = registry.resolve(config, precision.Device(kind='cpu', bf16=False));"
        "registry.build_preparer(spec).prepare(['text']); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def _bloom(folder: Path, limit: int, **values: Any) -> TextTokenizer:
    tiny_models.write_tokenizer("byte_level_bloom", folder)
    (folder / "config.json").write_text('{"model_type": "bloom"}')
    return TextTokenizer(spec_for(folder, limit, **values))


def _t5(folder: Path, *, limit: int = 64, **values: Any) -> TextTokenizer:
    tiny_models.write_tokenizer("unigram_t5", folder)
    (folder / "config.json").write_text('{"model_type": "t5"}')
    return TextTokenizer(spec_for(folder, limit, **values))
