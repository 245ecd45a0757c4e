"""What a model folder is refused for, and what is taken from it: before any row is read, by name, with exit code."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from encoders import tiny_models
from safetensors.torch import load_file, save_file

from pipeline.config import EncoderConfig
from pipeline.encoders import registry
from pipeline.encoders.base import EncoderSpec
from pipeline.encoders.precision import Device, lacking, resolve_dtype
from pipeline.exceptions import ConfigError, ModelError, PipelineError

CPU, OLD_CPU = Device(kind="cpu", bf16=True), Device(kind="cpu", bf16=False)
GPU, OLD_GPU = Device(kind="cuda", bf16=True), Device(kind="cuda", bf16=False)
MEAN = ("Pooling", {"word_embedding_dimension": 128, "pooling_mode_mean_tokens": True})
DENSE = ("Dense", {"in_features": 128, "out_features": 64, "bias": False, "activation_function": "torch.nn.Identity"})
NORMALIZE = ("Normalize", {})


def small_bert(vocabulary: int) -> Any:
    return tiny_models.bert(vocabulary, width=128, heads=2, inner=256)


def small_t5(vocabulary: int) -> Any:
    return tiny_models.t5(vocabulary, width=128, inner=256, heads=2)


@pytest.fixture
def bert(tmp_path):
    folder = tmp_path / "bert"
    tiny_models.write_model(folder, small_bert, "word_piece")
    return folder


@pytest.fixture
def t5(tmp_path):
    folder = tmp_path / "t5"
    tiny_models.write_model(folder, small_t5, "unigram_t5")
    tiny_models.write_chain(folder, [MEAN, DENSE, NORMALIZE])
    return folder


def resolve(folder: Path | str, device: Device = CPU, **keys: Any) -> EncoderSpec:
    return registry.resolve(EncoderConfig(model=str(folder), **keys), device)


def encode(spec: EncoderSpec, texts: list[str]) -> np.ndarray:
    return registry.build_encoder(spec, "cpu", 1).encode(registry.build_preparer(spec).prepare(texts))


def refusal(folder: Path, **keys: Any) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        resolve(folder, **keys)
    return caught.value


def edit(path: Path, **values: Any) -> None:
    found = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(found | values))


@pytest.mark.parametrize(
    ("kind", "config", "named"),
    [
        ("WeightedLayerPooling", {}, "WeightedLayerPooling"),
        ("CNN", {}, "CNN"),
        ("Pooling", {"pooling_mode": "attention"}, "attention"),
        ("Dense", DENSE[1] | {"activation_function": "own.code.Act"}, "own.code.Act"),
        ("Dense", DENSE[1] | {"use_residual": True}, "residual"),
        ("Dense", DENSE[1] | {"module_input_name": "token_embeddings"}, "token_embeddings"),
        ("Dense", DENSE[1] | {"in_features": 64}, "takes 64"),
        ("Normalize", {"module_input_name": "token_embeddings"}, "token_embeddings"),
    ],
)
def test_a_module_embatch_does_not_run_is_refused_by_name(bert, kind, config, named):
    heads = [(kind, config)] if kind == "Pooling" else [MEAN, (kind, config)]
    tiny_models.write_chain(bert, heads)
    error = refusal(bert)
    assert error.exit_code == 6
    assert named in str(error)


def test_a_module_of_the_models_own_code_is_refused(bert):
    tiny_models.write_chain(bert, [MEAN])
    modules = json.loads((bert / "modules.json").read_text())
    modules[1]["type"] = "custom_st.Pooling"
    (bert / "modules.json").write_text(json.dumps(modules))
    error = refusal(bert)
    assert (error.exit_code, "custom_st.Pooling" in str(error)) == (6, True)


@pytest.mark.parametrize(
    ("file", "values", "named"),
    [
        ("config.json", {"auto_map": {"AutoModel": "modeling_own.OwnModel"}}, "modeling_own.OwnModel"),
        ("config.json", {"model_type": "no_such_architecture"}, "no_such_architecture"),
        ("config.json", {"model_type": "bart", "is_encoder_decoder": True}, "bart"),
        ("config.json", {"position_embedding_type": "relative_key"}, "relative_key"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["own.Own", None]}}, "tokenizer_config.json"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "fill-mask"),
        ("sentence_bert_config.json", {"tokenizer_args": {"add_prefix_space": True}}, "tokenizer_args"),
        ("sentence_bert_config.json", {"model_args": {"is_causal": False}}, "model_args.is_causal"),
        (
            "sentence_bert_config.json",
            {"modality_config": {"text": {"method": "get_text_features", "method_output_name": "pooler_output"}}},
            "get_text_features",
        ),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "it is a SparseEncoder"),
        ("config.json", {"model_type": "big_bird"}, "attention_type: original_full"),
        ("config.json", {"model_type": "funnel"}, "no state for each token"),
        ("config.json", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantized (gptq)"),
        ("config.json", {"vision_config": {"hidden_size": 8}}, "images or sound beside texts (vision_config)"),
        ("tokenizer_config.json", {"tokenizer_class": "BertJapaneseTokenizer"}, "BertJapaneseTokenizer splits texts"),
        ("adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "a/b"}, "merge_and_unload"),
    ],
)
def test_a_folder_that_would_be_read_wrongly_is_refused(bert, file, values, named):
    tiny_models.write_chain(bert, [MEAN])
    edit(bert / file, **values)
    error = refusal(bert)
    assert error.exit_code == 6
    assert named in str(error)


def test_settings_of_a_transformer_module_that_change_no_vector_are_left_alone(bert):
    harmless = {"model_args": {"attn_implementation": "eager", "torch_dtype": "float16"}}
    harmless |= {"tokenizer_args": {"padding_side": "left"}, "config_args": {"trust_remote_code": True}}
    states = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
    tiny_models.write_chain(bert, [MEAN], modality_config=states, **harmless)
    assert resolve(bert).dimension == 128


def test_a_cross_encoder_is_refused_as_one(bert):
    edit(bert / "config.json", architectures=["BertForSequenceClassification"])
    assert "BertForSequenceClassification, a cross-encoder or classifier" in str(refusal(bert, pooling="cls"))
    tiny_models.write_chain(bert, [MEAN])  # what was trained from one is none
    assert resolve(bert).dimension == 128


@pytest.mark.parametrize(("kind", "path"), [("StaticEmbedding", "0_StaticEmbedding"), ("CLIPModel", "0_CLIPModel")])
def test_a_chain_that_begins_with_something_else_is_refused_by_its_name(bert, kind, path):
    (bert / "config.json").unlink()
    module = {"idx": 0, "name": "0", "path": path, "type": f"sentence_transformers.models.{kind}"}
    (bert / "modules.json").write_text(json.dumps([module]))
    assert f"its first module is {kind} in '{path}'" in str(refusal(bert))


PROMPTED = ["intfloat/e5-small-v2", "intfloat/multilingual-e5-base", "hkunlp/instructor-xl"]
UNPROMPTED = ["intfloat/multilingual-e5-large-instruct", "intfloat/e5-mistral-7b-instruct", "BAAI/bge-small-en-v1.5"]


@pytest.mark.parametrize(("name", "prompted"), [(name, name in PROMPTED) for name in PROMPTED + UNPROMPTED])
def test_a_model_that_needs_a_prompt_is_refused_until_the_job_says_which(bert, tmp_path, name, prompted):
    tiny_models.write_chain(bert, [MEAN])
    folder = tmp_path / name
    folder.parent.mkdir()
    bert.rename(folder)
    assert [resolve(folder, prompt=prompt).prompt for prompt in ("", "passage: ")] == ["", "passage: "]
    assert resolve(folder, prompt={"column": "instruction"}).prompt == ""
    if prompted:
        error = refusal(folder)
        assert (error.exit_code, "trained with a prompt before every text" in str(error)) == (2, True)
    else:
        assert resolve(folder).prompt == ""


def test_a_prompt_that_the_files_name_for_documents_is_never_left_out_silently(bert):
    tiny_models.write_chain(bert, [MEAN])
    file = bert / "config_sentence_transformers.json"
    edit(file, prompts={"query": "task: search result | query: ", "document": "title: none | text: "})
    error = refusal(bert)
    assert (error.exit_code, "say {name: document}" in str(error)) == (2, True)
    assert resolve(bert, prompt={"name": "document"}).prompt == "title: none | text: "
    assert resolve(bert, prompt="").prompt == ""
    edit(file, prompts={"query": "Represent this sentence: ", "document": ""})  # queries only
    assert resolve(bert).prompt == ""


@pytest.mark.parametrize("file", ["tokenizer.json", "config.json", "2_Dense/model.safetensors"])
def test_a_missing_file_is_named(t5, file):
    (t5 / file).unlink()
    error = refusal(t5)
    assert error.exit_code == 6
    assert file in str(error)


@pytest.mark.parametrize("backend", ["packed", "padded"])
def test_weights_without_a_tensor_are_refused_at_loading(bert, backend):
    tiny_models.write_chain(bert, [MEAN])
    weights = load_file(bert / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, bert / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lack .*layer\.1\.output\.dense\.weight") as caught:
        registry.build_encoder(resolve(bert, backend=backend), "cpu", 1)
    assert caught.value.exit_code == 6


@pytest.mark.parametrize("backend", ["packed", "padded"])
def test_shards_of_an_earlier_upload_are_left_alone(bert, backend):
    tiny_models.write_chain(bert, [MEAN])
    exact = encode(resolve(bert, dtype="float32", backend=backend), ["a text"])
    weights = load_file(bert / "model.safetensors")
    (bert / "model.safetensors").unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    halves = [dict(list(weights.items())[half::2]) for half in (0, 1)]
    for name, half in zip(names, halves, strict=True):
        save_file(half, bert / name, {"format": "pt"})
    weight_map = {key: name for name, half in zip(names, halves, strict=True) for key in half}
    (bert / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    stale = {key: torch.zeros_like(value) for key, value in weights.items()}
    save_file(stale, bert / "model-00003-of-00003.safetensors", {"format": "pt"})
    found = encode(resolve(bert, dtype="float32", backend=backend), ["a text"])
    assert np.abs(found - exact).max() <= 1e-6


def test_code_of_another_repository_is_never_promised(bert):
    edit(bert / "config.json", auto_map={"AutoModel": "jinaai/jina-bert-implementation--modeling_bert.JinaBertModel"})
    error = str(refusal(bert, pooling="mean"))
    assert "in another repository, which no commit of this one pins" in error
    assert "trust_remote_code" not in error


@pytest.mark.parametrize("backend", ["packed", "padded"])
def test_weights_in_half_precision_and_of_a_model_with_a_head_load_as_they_are(bert, backend):
    tiny_models.write_chain(bert, [MEAN, NORMALIZE])
    weights = load_file(bert / "model.safetensors")
    halved = {f"bert.{name}": value.half() for name, value in weights.items() if "pooler" not in name}
    save_file({name[5:]: value.float() for name, value in halved.items()}, bert / "model.safetensors", {"format": "pt"})
    exact = encode(resolve(bert, dtype="float32", backend=backend), ["a text", "another"])
    save_file(halved | {"cls.predictions.bias": torch.zeros(3)}, bert / "model.safetensors", {"format": "pt"})
    found = encode(resolve(bert, dtype="float32", backend=backend), ["a text", "another"])
    assert np.abs(found - exact).max() <= 1e-6


def test_a_folder_without_modules_needs_a_pooling(bert):
    error = refusal(bert)
    assert (error.exit_code, "encoder.pooling" in str(error)) == (6, True)
    assert resolve(bert, pooling="lasttoken").heads == [{"type": "pooling", "modes": ["lasttoken"]}]


def test_a_pooling_of_the_job_replaces_the_models(bert):
    tiny_models.write_chain(bert, [MEAN, NORMALIZE])
    assert resolve(bert, pooling="weightedmean").pooling == "weightedmean"
    assert resolve(bert, pooling="weightedmean").normalized


@pytest.mark.parametrize(
    ("asked", "kept"), [("include", "include"), ("exclude", "exclude"), ("instructor", "instructor")]
)
def test_a_t5_with_dense_and_a_prompt_takes_the_jobs_word_for_its_kind(t5, asked, kept):
    assert resolve(t5, prompt="Represent: ", prompt_pooling=asked).prompt_pooling == kept


@pytest.mark.parametrize(
    "prompt", [{"text": "Represent: "}, {"column": "instruction"}, {"template": "Represent {x}: "}]
)
def test_a_t5_with_dense_and_a_prompt_of_unknown_kind_is_refused(t5, prompt):
    error = refusal(t5, prompt=prompt)
    assert error.exit_code == 2
    assert "encoder.prompt_pooling" in str(error)


@pytest.mark.parametrize(
    ("repository", "include_prompt", "expected"),
    [
        ("hkunlp/instructor-tiny", None, "instructor"),
        ("hkunlp/instructor-tiny", False, "instructor"),
        ("someone/instructor-tiny", False, "exclude"),
        ("someone/sentence-t5", True, "include"),
    ],
)
def test_prompt_pooling_goes_by_the_files_then_by_the_name(t5, tmp_path, repository, include_prompt, expected):
    if include_prompt is not None:
        edit(t5 / "1_Pooling/config.json", include_prompt=include_prompt)
    folder = tmp_path / repository
    folder.parent.mkdir()
    t5.rename(folder)
    assert resolve(folder, prompt="Represent: ").prompt_pooling == expected


def test_a_prompt_that_fills_the_limit_is_refused(bert):
    tiny_models.write_chain(bert, [MEAN])
    error = refusal(bert, prompt="the " * 14, max_seq_length=16)
    assert (error.exit_code, str(error).startswith("encoder.prompt:")) == (2, True)
    assert resolve(bert, prompt="the " * 13, max_seq_length=16).max_seq_length == 16


def test_a_prompt_is_taken_by_its_name(bert):
    tiny_models.write_chain(bert, [MEAN])
    prompts = {"query": "query: ", "passage": "passage: "}
    edit(bert / "config_sentence_transformers.json", prompts=prompts, default_prompt_name="passage")
    assert resolve(bert).prompt == "passage: "
    assert resolve(bert, prompt={"name": "query"}).prompt == "query: "
    assert refusal(bert, prompt={"name": "other"}).exit_code == 2


@pytest.mark.parametrize(
    ("architecture", "tokenizer", "limit"),
    [
        (lambda size: tiny_models.roberta(size, width=48), "byte_level", 512),
        (lambda size: tiny_models.mpnet(size, width=48), "word_piece_mpnet", 512),
    ],
)
def test_positions_that_are_reserved_do_not_count(tmp_path, architecture, tokenizer, limit):
    tiny_models.write_model(tmp_path, architecture, tokenizer)
    (tmp_path / "tokenizer_config.json").unlink()
    assert resolve(tmp_path, pooling="mean").max_seq_length == limit
    assert refusal(tmp_path, pooling="mean", max_seq_length=limit + 1).exit_code == 2


@pytest.mark.parametrize(
    ("model_type", "device", "expected"),
    [
        ("bert", GPU, "float16"),
        ("mpnet", OLD_GPU, "float16"),
        ("t5", GPU, "bfloat16"),
        ("t5", OLD_GPU, "float32"),
        ("qwen3", GPU, "bfloat16"),
        ("bert", CPU, "bfloat16"),
        ("t5", CPU, "bfloat16"),
        ("t5", OLD_CPU, "float32"),
    ],
)
def test_auto_takes_the_precision_that_fits_family_and_device(model_type, device, expected):
    assert resolve_dtype("auto", device, model_type) == expected


def test_float16_is_refused_where_it_overflows():
    assert resolve_dtype("float16", CPU, "bert") == "float16"
    with pytest.raises(ConfigError, match="overflows float16"):
        resolve_dtype("float16", CPU, "t5")
    with pytest.raises(ConfigError, match="positions in its scores, which float16 would round"):
        resolve_dtype("float16", CPU, "bloom")


def test_t5_stored_in_float16_does_not_overflow(t5):
    weights = load_file(t5 / "model.safetensors")
    # the residual passes float16's largest number, 65504, as that of instructor-large does
    large = {name: value * 30_000 if name.endswith("wo.weight") else value for name, value in weights.items()}
    save_file({name: value.half() for name, value in large.items()}, t5 / "model.safetensors", {"format": "pt"})
    ids = torch.arange(3, 40)[None]
    states = transformers.T5EncoderModel.from_pretrained(t5, dtype=torch.float32)(ids, output_hidden_states=True)
    texts = tiny_models.texts(40)

    vectors, exact = (encode(resolve(t5, dtype=dtype), texts) for dtype in ("bfloat16", "float32"))

    assert states.hidden_states[1].abs().max() > 65504
    assert (vectors * exact).sum(1).min() >= 0.9995


def small_qwen3(vocabulary: int) -> Any:
    return tiny_models.qwen3(vocabulary, width=64)


@pytest.fixture
def qwen3(tmp_path):
    folder = tmp_path / "qwen3"
    tiny_models.write_model(folder, small_qwen3, "byte_level_qwen")
    return folder


@pytest.mark.parametrize(
    "name", ["bigscience/sgpt-bloom-7b1-msmarco", "Muennighoff/SGPT-125M-weightedmean-specb-bitfit"]
)
def test_a_model_named_as_one_with_brackets_is_refused_until_the_job_says_which(bert, tmp_path, name):
    folder = tmp_path / name
    folder.parent.mkdir()
    bert.rename(folder)
    error = refusal(folder, pooling="weightedmean")
    assert (error.exit_code, str(error).startswith("encoder.brackets: ")) == (2, True)
    assert resolve(folder, pooling="weightedmean", brackets="none").brackets is None
    found = resolve(folder, pooling="weightedmean", brackets="document").identity()
    assert found["brackets"] == "document"


def test_an_identity_names_brackets_and_code_only_where_they_are_used(bert):
    found = resolve(bert, pooling="mean").identity()
    assert {"brackets", "remote_code", "folder"}.isdisjoint(found)


@pytest.mark.parametrize("prompt", [{"text": "query: "}, {"column": "instruction"}])
def test_brackets_and_a_prompt_exclude_each_other(bert, prompt):
    error = refusal(bert, pooling="mean", brackets="query", prompt=prompt)
    assert (error.exit_code, "encoder.brackets takes the place of a prompt" in str(error)) == (2, True)


def test_a_limit_that_brackets_fill_is_refused(bert):
    error = refusal(bert, pooling="mean", brackets="query", max_seq_length=2)
    assert (error.exit_code, str(error).startswith("encoder.max_seq_length: ")) == (2, True)


@pytest.mark.parametrize(
    ("change", "backend"),
    [
        ({}, "packed"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}}, "packed"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e6, "factor": 2.0}}, "padded"),
        ({"rope_parameters": None, "rope_scaling": {"type": "longrope"}}, "padded"),
        ({"is_causal": False}, "padded"),
    ],
)
def test_a_rotary_encoder_is_packed_where_its_rotation_and_direction_are_plain(qwen3, change, backend):
    edit(qwen3 / "config.json", **change)
    spec = resolve(qwen3, pooling="lasttoken")
    assert (spec.backend, spec.backend_reason is None) == (backend, backend == "packed")


def test_a_rotary_encoder_is_packed_on_a_gpu_in_bfloat16_only(qwen3):
    found = resolve(qwen3, GPU, pooling="lasttoken")
    assert (found.backend, found.dtype) == ("packed", "bfloat16")
    assert "in float32, only in bfloat16" in resolve(qwen3, GPU, pooling="lasttoken", dtype="float32").backend_reason


@pytest.fixture
def nomic(tmp_path):
    folder = tmp_path / "nomic"
    tiny_models.write_model(folder, lambda size: tiny_models.nomic(size, width=64), "word_piece")
    tiny_models.publish_nomic(folder)
    return folder


def test_a_nomic_model_runs_by_transformers_and_beyond_its_trained_positions(nomic):
    edit(nomic / "sentence_bert_config.json", max_seq_length=8192)
    spec = resolve(nomic, pooling="mean")
    assert (spec.remote_code, spec.backend, spec.max_seq_length, spec.dimension) == (False, "packed", 8192, 64)


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_experts", 8), ("activation_function", "geglu"), ("qkv_proj_bias", True), ("rotary_scaling_factor", 2.0)],
)
def test_what_transformers_does_not_compute_of_nomic_is_refused(nomic, key, value):
    edit(nomic / "config.json", **{key: value})
    error = refusal(nomic, pooling="mean")
    assert (error.exit_code, f"{key} is {value!r}" in str(error)) == (6, True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layer_norm_type", "rms_norm"),
        ("logn_attention_scale", True),
        ("position_embedding_type", "absolute"),
        ("rope_scaling", {"type": "ntk", "factor": 2.0, "mixed_b": 0.6}),
    ],
)
def test_what_transformers_does_not_compute_of_gte_is_refused(bert, key, value):
    published = {"model_type": "new", "auto_map": {"AutoModel": "a/b--modeling.NewModel"}, "rope_theta": 20_000}
    edit(bert / "config.json", **published, position_embedding_type="rope")
    assert resolve(bert, pooling="cls").backend == "packed"
    edit(bert / "config.json", **{key: value})
    error = refusal(bert, pooling="cls")
    assert (error.exit_code, f"{key} is {value!r}" in str(error)) == (6, True)


OLDER_GPU = Device(kind="cuda", bf16=False, lacks="its compute capability is 7.5, the kernels need 8.0")


@pytest.mark.parametrize(
    ("device", "keys", "reason"),
    [
        (GPU, {}, None),
        (OLDER_GPU, {}, "no packed forward on this GPU: its compute capability is 7.5"),
        (GPU, {"dtype": "bfloat16"}, "no packed forward of 'bert' in bfloat16, only in float16"),
        (GPU, {"dtype": "float32"}, "no packed forward of 'bert' in float32, only in float16"),
        (CPU, {"dtype": "float16"}, "no packed forward in float16 on a CPU"),
        (CPU, {}, None),
    ],
)
def test_what_cannot_run_packed_runs_padded_with_the_reason_in_log_and_plan(bert, caplog, device, keys, reason):
    spec = resolve(bert, device, pooling="mean", **keys)
    assert spec.backend == ("packed" if reason is None else "padded")
    if reason is None:
        assert (caplog.records, "backend_reason" in spec.identity()) == ([], False)
        return
    assert [reason in record.getMessage() for record in caplog.records] == [True]
    assert reason in spec.identity()["backend_reason"]
    assert EncoderSpec.from_identity(spec.identity(), "").backend_reason == spec.backend_reason
    with pytest.raises(ConfigError, match=f"{re.escape(reason)}.*use auto or padded"):
        resolve(bert, device, pooling="mean", backend="packed", **keys)


def test_padded_by_the_job_needs_no_reason(bert, caplog):
    spec = resolve(bert, GPU, pooling="mean", backend="padded")
    assert (spec.backend, spec.backend_reason, caplog.records) == ("padded", None, [])


def test_t5_is_packed_on_a_gpu_in_bfloat16_only(t5):
    assert (resolve(t5, GPU).backend, resolve(t5, GPU).dtype) == ("packed", "bfloat16")
    assert "in float32, only in bfloat16" in resolve(t5, GPU, dtype="float32").backend_reason


@pytest.mark.parametrize("heads", [2, 8])
def test_heads_of_another_width_run_padded_on_a_gpu(tmp_path, heads):
    tiny_models.write_model(tmp_path, lambda size: tiny_models.bert(size, 128, 64, heads), "word_piece")
    spec = resolve(tmp_path, GPU, pooling="mean")
    assert spec.backend == {2: "packed", 8: "padded"}[heads]
    assert (spec.backend_reason is not None) == ("heads of 16" in str(spec.backend_reason)) == (heads == 8)


def test_a_gpu_needs_its_generation_triton_and_a_compiler(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("CC", "cc")
    assert lacking((9, 0)) is None
    assert "7.5" in lacking((7, 5))
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", "")
    assert "gcc" in lacking((8, 0))
    monkeypatch.setitem(sys.modules, "triton", None)
    assert "Triton is not installed" in lacking((8, 0))


def test_vectors_are_truncated_as_the_job_says_or_the_model(bert):
    tiny_models.write_chain(bert, [MEAN, NORMALIZE])
    whole = resolve(bert)
    (bert / "config_sentence_transformers.json").write_text(json.dumps({"truncate_dim": 32}))
    own, asked, all_of_it = resolve(bert), resolve(bert, truncate_dim=8), resolve(bert, truncate_dim=128)
    assert [spec.dimension for spec in (whole, own, asked, all_of_it)] == [128, 32, 8, 128]
    assert [spec.normalized for spec in (own, asked)] == [True, True]
    assert own.heads[-2:] == [{"type": "truncate", "out_features": 32}, {"type": "normalize"}]
    assert all_of_it.heads == whole.heads
    with pytest.raises(ConfigError, match=r"encoder\.truncate_dim: 129 is more than the 128 numbers of a vector"):
        resolve(bert, truncate_dim=129)
