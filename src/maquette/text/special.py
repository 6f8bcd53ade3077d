"""Special tokens: this project's own, whose ids never move, and those of foreign tokenizers, found by their names.

Beside them the chat template in Jinja. A token stream holds a document as `<|document|>` and then its tokens, so that
one id is both begin and separator.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DOCUMENT = "<|document|>"
PADDING = "<|padding|>"
SYSTEM = "<|system|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
END_OF_TURN = "<|end_of_turn|>"

SPECIAL_TOKENS = (
    DOCUMENT,
    PADDING,
    SYSTEM,
    USER,
    ASSISTANT,
    END_OF_TURN,
    *(f"<|reserved_{number}|>" for number in range(6, 16)),
)
"""A token's place here is its id in every tokenizer of this project: add at reserved places, never move one."""

CHAT_TOKENS = (SYSTEM, USER, ASSISTANT, END_OF_TURN)
"""What a tokenizer needs for the chat template (text/chat.py); a foreign one gets them by `add_tokens`."""


def jinja_template(document: str = DOCUMENT) -> str:
    """The template in Jinja, for tokenizer_config.json; `document` is the text of the token before a document.

    The `generation` block is how `transformers` learns which tokens the assistant wrote (its
    `return_assistant_tokens_mask`).
    """
    return (
        f"{{{{- '{document}' -}}}}"
        "{%- for message in messages -%}"
        "{%- if message['role'] not in ['system', 'user', 'assistant'] -%}"
        "{{- raise_exception('Known roles: system, user, assistant; not ' ~ message['role']) -}}"
        "{%- elif message['role'] == 'system' and not loop.first -%}"
        "{{- raise_exception('Only the first message can be a system message') -}}"
        "{%- elif not loop.first and message['role'] == messages[loop.index0 - 1]['role'] -%}"
        "{{- raise_exception('Turns alternate: two of the ' ~ message['role'] ~ ' in a row') -}}"
        "{%- elif message['content'] is not string -%}"
        "{{- raise_exception('A message is a text') -}}"
        "{%- endif -%}"
        "{{- '<|' ~ message['role'] ~ '|>' -}}"
        "{%- if message['role'] == 'assistant' -%}"
        f"{{%- generation -%}}{{{{- message['content'] ~ '{END_OF_TURN}' -}}}}{{%- endgeneration -%}}"
        "{%- else -%}"
        f"{{{{- message['content'] ~ '{END_OF_TURN}' -}}}}"
        "{%- endif -%}"
        "{%- endfor -%}"
        f"{{%- if add_generation_prompt -%}}{{{{- '{ASSISTANT}' -}}}}{{%- endif -%}}"
    )


# What well-known tokenizers call these. Llama, Gemma, Llama 3, GPT-2 and Qwen, DeepSeek in this order of looking.
_BEGIN_NAMES = ("<|begin_of_text|>", "<s>", "<bos>", "<|endoftext|>", "<｜begin▁of▁sentence｜>", "[BOS]")
_END_NAMES = ("<|end_of_text|>", "</s>", "<eos>", "<|endoftext|>", "<｜end▁of▁sentence｜>", "[EOS]")
_PADDING_NAMES = ("<pad>", "<|pad|>", "[PAD]", "<|finetune_right_pad_id|>", "<｜▁pad▁｜>")
_END_OF_TURN_NAMES = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>")
_SETTINGS = ("bos_token", "eos_token", "pad_token", "unk_token")


@dataclass(frozen=True)
class SpecialIds:
    """Ids with a meaning, None where a tokenizer has no such token; `all` has every special token: content -> id."""

    all: dict[str, int]
    document: int | None
    padding: int | None
    end_of_text: int | None
    end_of_turn: int | None


def find_special_ids(
    vocabulary: Mapping[str, int], flagged: Mapping[str, int], settings: Mapping[str, Any]
) -> SpecialIds:
    """Finds what stands for a document's begin and end, padding and the end of a turn.

    `vocabulary` is every token, `flagged` the ones that tokenizer.json marks as special, `settings` what
    tokenizer_config.json says. This project's own names come first, then the settings, then well-known names.
    """
    named = {key: content for key in _SETTINGS if (content := _content(settings.get(key))) in vocabulary}
    everything = {**flagged, **{content: vocabulary[content] for content in named.values()}}

    def first(*names: str | None) -> int | None:
        return next((everything[name] for name in names if name in everything), None)

    return SpecialIds(
        all=dict(sorted(everything.items(), key=lambda item: item[1])),
        document=first(DOCUMENT, named.get("bos_token"), *_BEGIN_NAMES, named.get("eos_token"), *_END_NAMES),
        padding=first(PADDING, named.get("pad_token"), *_PADDING_NAMES),
        end_of_text=first(DOCUMENT, named.get("eos_token"), *_END_NAMES),
        end_of_turn=first(END_OF_TURN, *_END_OF_TURN_NAMES),
    )


def named_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """bos_token, eos_token, ... -> its text: what a chat template may ask for."""
    names = {key for key in settings if key.endswith("_token")}
    return {key: content for key in sorted(names) if (content := _content(settings[key]))}


def _content(entry: Any) -> str:
    """tokenizer_config.json names a token by its text, or by a record that has it as `content`."""
    return str(entry.get("content", "")) if isinstance(entry, Mapping) else str(entry or "")
