"""Through import and export nothing is lost: stop ids, sampling defaults, chat templates, added tokens, normalizers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from maquette.artifacts import StageError
from maquette.artifacts.manifest import verify_files
from maquette.cli import export, import_
from maquette.cli.command_line.model_config import ExportStage, ImportStage
from maquette.model import LanguageModel, hf
from maquette.model.generation import generate
from maquette.model.loading import load_checkpoint
from maquette.text import CHAT_TOKENS, Tokenizer

transformers = pytest.importorskip("transformers")

GENERATION = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "bos_token_id": 1, "eos_token_id": [1, 2, 3]}
TEMPLATE = "{%- for message in messages %}<|im_start|>{{ message.content }}\r\n<|im_end|>\n{% endfor %}"
SHAPE: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 64,
}  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model as it is published for transformers 5, with all that has a file of its own."""
    folder = tmp_path / "stops"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|eom|>", *alphabet]
    backend = Backend(models.BPE({token: id for id, token in enumerate(tokens)}, []))
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel()
    backend.add_special_tokens(tokens[:4])
    backend.add_tokens([AddedToken("<think>", normalized=False)])
    config = transformers.LlamaConfig(
        vocab_size=backend.get_vocab_size(), bos_token_id=0, eos_token_id=[2, 3], pad_token_id=None, **SHAPE
    )
    model = transformers.LlamaForCausalLM(config)
    model.generation_config = transformers.GenerationConfig(**GENERATION)
    model.save_pretrained(folder)
    backend.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64, "bos_token": "<|endoftext|>"}
    write(folder / "tokenizer_config.json", settings)
    write(folder / "special_tokens_map.json", {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"})
    write(folder / "added_tokens.json", {"<think>": backend.token_to_id("<think>")})
    (folder / "chat_template.jinja").write_bytes(TEMPLATE.encode())
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("tools")
    (folder / "LICENSE").write_text("Apache")
    return folder


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def imported(source: Path) -> Path:
    return import_.run(ImportStage(outputs=str(source.parent / "out"), path=str(source)))


def exported(source: Path) -> Path:
    imported(source)
    return export.run(ExportStage(outputs=str(source.parent / "out"), checkpoint=source.name))


def test_every_file_comes_out_as_it_went_in(source: Path) -> None:
    folder = exported(source)
    for name in ("generation_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer_config.json",
                 "tokenizer.json"):  # fmt: skip
        assert read(folder / name) == read(source / name), name
    for name in ("chat_template.jinja", "additional_chat_templates/tool_use.jinja"):
        assert (folder / name).read_bytes() == (source / name).read_bytes()
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert read(folder / "config.json").get(key) == read(source / "config.json").get(key)
    assert export.run(ExportStage(outputs=str(folder.parents[1]), checkpoint=source.name)) == folder, "up to date"


def test_transformers_opens_what_comes_out_as_what_went_in(source: Path) -> None:
    folder = exported(source)
    before, after = (transformers.AutoTokenizer.from_pretrained(one) for one in (source, folder))
    assert after.chat_template == before.chat_template
    assert after.chat_template["tool_use"] == "tools" and "<|im_start|>" in after.chat_template["default"]
    talk = [{"role": "user", "content": "hi"}]
    assert after.apply_chat_template(talk, tokenize=False) == before.apply_chat_template(talk, tokenize=False)
    text = "nai\u0308ve <think>  x"
    assert after(text).input_ids == before(text).input_ids
    models_ = [transformers.AutoModelForCausalLM.from_pretrained(one) for one in (source, folder)]
    settings = [model.generation_config.to_diff_dict() for model in models_]
    assert settings[0] == settings[1] and settings[1]["eos_token_id"] == [1, 2, 3] and settings[1]["top_p"] == 0.9


def test_generation_stops_at_each_of_its_ids(source: Path) -> None:
    model, tokenizer = load_checkpoint(imported(source))
    assert tokenizer.stop_ids == {0, 1, 2, 3}
    for end in (1, 2, 3):
        with torch.no_grad():
            model.core.embedding.weight.fill_(1.0)
            model.head_weight.copy_(-torch.ones_like(model.head_weight))
            model.head_weight[end] = 10 * torch.sign(model.core(torch.tensor([[9]]))[0, 0])
        (result,) = generate(model, [[9]], tokenizer=tokenizer, max_tokens=5)
        assert result.tokens == (end,) and result.finish_reason == "stop_id"


def test_what_is_not_followed_or_not_taken_is_said(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imported(source)
    output = capsys.readouterr().err
    assert "not followed by Maquette: temperature=0.6, top_p=0.9" in output
    assert "normalisation of text to NFC" in output and "no space before a text that begins with one" in output
    assert f"not taken from {source}: LICENSE\n" in output


def test_a_model_that_is_trained_on_keeps_them_and_adds_its_end_of_turn(source: Path, tmp_path: Path) -> None:
    model, tokenizer = load_checkpoint(imported(source))
    longer = tokenizer.add_tokens(CHAT_TOKENS, special=True)
    grown = LanguageModel(type(model.config)(**vars(model.config) | {"vocab_size": longer.vocab_size}))
    folder = hf.save(grown, longer, tmp_path / "tuned")
    end = longer.end_of_turn_id
    settings = read(folder / "generation_config.json")
    assert settings["eos_token_id"] == [1, 2, 3, end] and settings["top_p"] == 0.9
    assert read(folder / "config.json")["eos_token_id"] == [2, 3, end]
    assert transformers.AutoTokenizer.from_pretrained(folder).chat_template.startswith("{{- '<|endoftext|>'")
    assert Tokenizer.load(folder).stop_ids == {0, 1, 2, 3, end}


@pytest.mark.parametrize("name", ["chat_template.jinja", "generation_config.json", "added_tokens.json"])
def test_the_artifact_is_another_when_a_file_changes(source: Path, name: str) -> None:
    folder = imported(source)
    assert name in verify_files(folder).inputs
    (folder / name).write_text("{}")
    with pytest.raises(StageError, match="is damaged"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("generation_config.json", {"eos_token_id": "</s>"}, r"generation_config\.json: eos_token_id must be an id"),
        ("generation_config.json", {"eos_token_id": [1, -2]}, r"generation_config\.json: eos_token_id must be an id"),
        ("generation_config.json", [], r"generation_config\.json is damaged"),
        ("added_tokens.json", {"<think>": 7}, r"added_tokens\.json: '<think>' is token 7, in tokenizer.json 260"),
        ("added_tokens.json", {"<x>": 300}, r"added_tokens\.json: '<x>' is token 300, in tokenizer.json there is no"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"300": {"content": "<x>"}}}, r"config\.json: '<x>'"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": 1}}, r"tokenizer_config\.json is damaged"),
    ],
)  # fmt: skip
def test_files_that_contradict_are_refused_by_name(source: Path, name: str, content: Any, message: str) -> None:
    write(source / name, content)
    with pytest.raises(StageError, match=message):
        imported(source)


@pytest.mark.parametrize("index", [None, [], {}, {"x": 1}, {"x": "../stops/model.safetensors"}, {"x": "a.safetensors"}])
def test_a_damaged_index_is_refused_by_name(source: Path, index: Any) -> None:
    (source / "model.safetensors").rename(source / "model-1.safetensors")
    write(source / "model.safetensors.index.json", {"weight_map": index})
    with pytest.raises(StageError, match=r"model\.safetensors\.index\.json|a\.safetensors is missing"):
        imported(source)
