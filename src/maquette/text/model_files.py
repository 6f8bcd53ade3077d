"""What a Hugging Face folder says about its tokens beside tokenizer.json and tokenizer_config.json: at which ids
generation stops, how it samples by default, the chat templates, the names of special and added tokens. All of it goes
where the tokenizer goes, and is written back as it came.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maquette.artifacts import StageError
from maquette.artifacts.files import listed, write_json, write_text
from maquette.artifacts.reading import load_table, reading, short

GENERATION = "generation_config.json"
TEMPLATE = "chat_template.jinja"
TEMPLATES = "additional_chat_templates"
"""A folder of further `<name>.jinja`."""
_SPECIAL, _ADDED = "special_tokens_map.json", "added_tokens.json"
NAMES = (GENERATION, TEMPLATE, TEMPLATES, _SPECIAL, _ADDED)

_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_NOT_SAMPLING = (*_IDS, "do_sample", "transformers_version", "_from_model_config")


@dataclass(frozen=True)
class ModelFiles:
    """`generation`: generation_config.json; `ids`: those of special tokens in config.json; `special_tokens`,
    `added_tokens`: the files of these names; `templates`: path in the folder -> chat template."""

    generation: dict[str, Any] = field(default_factory=dict)
    ids: dict[str, Any] = field(default_factory=dict)
    special_tokens: dict[str, Any] = field(default_factory=dict)
    added_tokens: dict[str, Any] = field(default_factory=dict)
    templates: dict[str, str] = field(default_factory=dict)

    @property
    def stop_ids(self) -> frozenset[int]:
        """Every eos_token_id of generation_config.json and config.json."""
        return frozenset(id for source in (self.generation, self.ids) for id in _id_list(source.get("eos_token_id")))

    def with_ends(self, source: Mapping[str, Any], defaults: frozenset[int], more: int | None) -> Any:
        """The eos_token_id of `source` (`generation` or `ids`), by default `defaults`; `more` is among them."""
        ids = _id_list(source.get("eos_token_id")) or sorted(defaults)
        ids = [*ids, *({more} - {None, *ids})]
        return ids[0] if len(ids) == 1 else ids or None

    @property
    def sampling(self) -> dict[str, Any]:
        """The defaults of generation (temperature, top_p, ...), which only other programs follow."""
        return {key: value for key, value in self.generation.items() if key not in _NOT_SAMPLING and value is not None}

    def save(self, folder: Path, *, templates: bool) -> None:
        """Writes the files into `folder`, those with chat templates only on demand."""
        for name, content in (
            (GENERATION, self.generation), (_SPECIAL, self.special_tokens), (_ADDED, self.added_tokens)
        ):  # fmt: skip
            if content:
                write_json(folder / name, content)
        for name, text in self.templates.items() if templates else ():
            (folder / name).parent.mkdir(exist_ok=True)
            write_text(folder / name, text)

    def check_added(self, vocabulary: Mapping[str, int], settings: Mapping[str, Any], folder: Path) -> None:
        """Raises `StageError` where an added token of added_tokens.json or tokenizer_config.json is not the token of
        this id in tokenizer.json."""
        listed_tokens = [(content, id, _ADDED) for content, id in self.added_tokens.items()]
        with reading(folder / "tokenizer_config.json"):
            for id, token in (settings.get("added_tokens_decoder") or {}).items():
                content = token["content"] if isinstance(token, Mapping) else token
                listed_tokens.append((content, int(id), "tokenizer_config.json"))
        for content, id, name in listed_tokens:
            if vocabulary.get(content) != id:
                raise StageError(
                    f"{folder / name}: {short(repr(content), 60)} is token {short(id, 20)}, in tokenizer.json "
                    f"{vocabulary.get(content, 'there is no such token')}.",
                    "Fetch both files again, or write them with transformers' save_pretrained.",
                )


def read_table(path: Path, hint: str) -> dict[str, Any]:
    """The object in a JSON file that will be written again. Raises `StageError` where it is damaged."""
    content = load_table(path, hint=hint)
    with reading(path, hint=hint):
        json.dumps(content, ensure_ascii=False).encode()  # half a character can be escaped in JSON, but not written
    return content


def read_model_files(folder: Path) -> ModelFiles:
    """Reads those that are there. Raises `StageError` naming a file that is damaged."""
    hint = "Fetch the file again."

    def table(name: str) -> dict[str, Any]:
        return read_table(folder / name, hint) if (folder / name).is_file() else {}

    generation, config = table(GENERATION), table("config.json")
    for name, content in ((GENERATION, generation), ("config.json", config)):
        ids = _id_list(content.get("eos_token_id"))
        if not all(isinstance(id, int) and not isinstance(id, bool) and 0 <= id < 2**31 for id in ids):
            raise StageError(
                f"{folder / name}: eos_token_id must be an id or a list of ids, got {short(ids, 60)}.", hint
            )
    templates = {}
    for path in (folder / TEMPLATE, *listed(folder / TEMPLATES, "*.jinja")):
        if path.is_file():
            with reading(path, hint=hint):
                templates[str(path.relative_to(folder))] = path.read_bytes().decode()
    special_ids = {key: config[key] for key in _IDS if config.get(key) is not None}
    return ModelFiles(generation, special_ids, table(_SPECIAL), table(_ADDED), templates)


def _id_list(value: Any) -> list[Any]:
    """The ids of an eos_token_id: one, several, or none."""
    return [] if value is None else value if isinstance(value, list) else [value]
