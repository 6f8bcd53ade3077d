"""A family of models that Hugging Face knows: what its settings and tensors are called there. Free of torch.

A family says which of our configurations it can express, how a `config.json` is read and written, and which of our
tensors each of theirs holds. The numbers themselves are moved by weights.py.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from maquette.artifacts import StageError
from maquette.artifacts.reading import short
from maquette.model.architecture import KINDS, CustomConfig, TransformerConfig, describe_architecture
from maquette.model.core_config import CoreConfig

Raw = dict[str, Any]
"""The content of a `config.json`."""


@dataclass(frozen=True)
class Stored:
    """One tensor of theirs: it holds `ours`, one after the other along the output dimension, perhaps transposed; or
    of one stack of ours the matrix of one `expert`."""

    name: str
    ours: tuple[str, ...]
    transposed: bool = False
    expert: int | None = None


@dataclass(frozen=True)
class ModelFamily:
    """One architecture.

    - `expresses(config)`: can it hold our model?
    - `read(raw)`: our configuration, or `StageError` naming the setting that the core does not have
    - `write(config)`: their settings
    - `tensors(config)`: where our tensors lie; None where they keep their own names
    - `prefix`: what files of the bare model leave out of names
    - `ignored`: endings of names of buffers that old files carry
    - `head`: the name of the head's matrix, which files of tied models may hold a second time
    """

    architecture: str
    model_type: str
    expresses: Callable[[CoreConfig], bool]
    read: Callable[[Raw], CoreConfig]
    write: Callable[[Any], Raw]
    tensors: Callable[[Any], list[Stored]] | None = None
    prefix: str = ""
    ignored: tuple[str, ...] = ()
    head: str = "lm_head.weight"

    @property
    def scalar_architecture(self) -> str:
        """What `transformers` calls the family's core with one number in place of the head."""
        return self.architecture.replace("LMHeadModel", _SCALAR).replace("ForCausalLM", _SCALAR)


_SCALAR = "ForSequenceClassification"


READS_RENDERING = "reads_rendering"
"""Of a reward model, in its `config.json`: see `maquette.model.heads.ScalarModel`."""


def is_scalar(raw: Raw) -> bool:
    """Whether a `config.json` is a reward model's."""
    named = raw.get("architectures")
    return isinstance(named, list) and any(str(name).endswith(_SCALAR) for name in named)


def unsupported(key: str, value: Any, hint: str = "") -> StageError:
    """The error for a setting of theirs that the core does not have."""
    return StageError(
        f"{key}={value} is not supported.", hint or "The core has no such option, so its logits would differ."
    )


def require(raw: Raw, **allowed: tuple[Any, ...]) -> None:
    """Raises `StageError` for the first setting that is not among its allowed values; the first is its default."""
    for key, values in allowed.items():
        if (value := raw.get(key, values[0])) not in values:
            raise unsupported(key, value)


class ReadSettings(dict[str, Any]):
    """A `config.json` that knows which of its settings a family has looked at: what nobody reads is not lost in
    silence."""

    def __init__(self, raw: Raw) -> None:
        super().__init__(raw)
        self._seen: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self._seen.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self._seen.add(key)
        return super().get(key, default)

    def require_known(self) -> None:
        """Raises `StageError` for a setting that is on, that the family did not read, and that may change logits."""
        for key, value in self.items():
            off = value is None or value is False or value in ("", [], {})
            harmless = key in _WITHOUT_EFFECT or key.endswith(_ENDINGS_WITHOUT_EFFECT) or key.startswith("summary_")
            if off or harmless or key in self._seen:
                continue
            raise unsupported(
                short(key, 60), short(value, 60),
                "The core has no such option. Remove it from config.json if logits do not depend on it.",
            )  # fmt: skip


_NAMES = (
    "architectures model_type torch_dtype dtype use_cache auto_map tokenizer_class processor_class initializer_range "
    "pretraining_tp gradient_checkpointing output_attentions output_hidden_states return_dict use_return_dict "
    "torchscript use_bfloat16 is_decoder is_llama_config rope_interleaved chunk_size_feed_forward finetuning_task "
    "id2label label2id num_labels problem_type prefix task_specific_params n_ctx reorder_and_upcast_attn layer_types "
    "sliding_window max_window_layers bias quantization_config keys_to_ignore_at_inference transformers.js_config "
    "model_max_length max_sequence_length max_seq_len bos_token eos_token pad_token unk_token _num_labels "
    "predict_special_tokens tokenizer_digest unsloth_version unsloth_fixed original_max_position_embeddings rotary_dim "
    "sep_token reads_rendering "
    "num_beams num_beam_groups num_return_sequences do_sample early_stopping max_length min_length max_new_tokens "
    "temperature top_k top_p typical_p repetition_penalty length_penalty diversity_penalty no_repeat_ngram_size "
    "encoder_no_repeat_ngram_size bad_words_ids suppress_tokens begin_suppress_tokens exponential_decay_length_penalty "
    "remove_invalid_values output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id"
)
_WITHOUT_EFFECT = frozenset(_NAMES.split())
"""Settings of classes, files, training and sampling: logits do not depend on them, or something else reads them."""

_ENDINGS_WITHOUT_EFFECT = ("_token_id", "_pdrop", "_dropout", "dropout_prob", "transformers_version", "_name_or_path",
                           "attn_implementation", "_commit_hash", "experts_implementation")  # fmt: skip


def number(raw: Raw, key: str) -> Any:
    """A size without which there is no model. Raises `StageError` where it is missing."""
    if (value := raw.get(key)) is None:
        raise StageError(f"{key} is missing.", "Is this the config.json of a causal language model?")
    return value


MODELING = "modeling_maquette"

FORMAT = 2
"""Of the settings in `config.json`: from 2 on they have the names that `transformers` uses."""


def _read(raw: Raw) -> CoreConfig:
    if (version := raw.get("maquette_format", 1)) != FORMAT:
        raise StageError(
            f"The settings are of format {version}, and this version of Maquette reads {FORMAT}.",
            "Export the run again; of a run from before this version, with the version that trained it, or "
            "train it again.",
        )
    require(raw, kind=tuple(KINDS))
    kind = KINDS[raw.get("kind", "transformer")]
    for key in ("vocab_size", "size") if kind is CustomConfig else ("vocab_size", "hidden_size", "num_hidden_layers"):
        number(raw, key)
    fields = {field.name for field in dataclasses.fields(kind)}
    config: CoreConfig = kind(**{key: raw[key] for key in fields & raw.keys()})
    return config


def _write(config: CoreConfig) -> Raw:
    settings: dict[str, Any] = {"maquette_format": FORMAT} | describe_architecture(config)
    if isinstance(config, TransformerConfig):
        settings |= {
            "num_key_value_heads": config.key_value_heads,
            "head_dim": config.width_of_head,
            "intermediate_size": config.inner_width,
            "attention_bias": config.query_key_value_bias,
        }
        if config.layer_types is not None:  # of each layer, as transformers asks for them
            settings["layer_types"] = config.all_layer_types
    if config.opens_in_transformers:
        settings["auto_map"] = {
            "AutoConfig": f"{MODELING}.MaquetteConfig",
            "AutoModelForCausalLM": f"{MODELING}.MaquetteForCausalLM",
            "AutoModelForSequenceClassification": f"{MODELING}.MaquetteForSequenceClassification",
        }
    return settings


OWN = ModelFamily(
    "MaquetteForCausalLM",
    "maquette",
    expresses=lambda config: True,
    read=_read,
    write=_write,
    head="head.weight",
)
