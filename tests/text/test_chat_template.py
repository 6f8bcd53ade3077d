"""Chat templates of imported models: the ids of `transformers`, and which of them the assistant wrote."""

import json
import string
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from maquette.artifacts import ConfigError, StageError
from maquette.data.conversations import Preference
from maquette.data.examples import Examples, encode_preferences
from maquette.text import Tokenizer
from maquette.text.chat import Message, render
from maquette.text.chat_template import rendered, template_text

TEMPLATES = sorted((Path(__file__).parent / "chat_templates").glob("*.jinja"))
SPECIAL = [
    "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    "<start_of_turn>", "<end_of_turn>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>",
]  # fmt: skip
NAMED = {"bos_token": "<s>", "eos_token": "</s>"}

ENDS = dict.fromkeys(["chatml", "smollm", "qwen_tools", "qwen_thinking"], "<|im_end|>")
ENDS |= {"gemma": "<end_of_turn>", "llama3": "<|eot_id|>", "phi3": "<|end|>"}

SYSTEM: Message = {"role": "system", "content": "Be brief."}
TURNS: list[Message] = [
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "content": "It is 4, naïvely."},
    {"role": "user", "content": "And\n3 + 3?"},
    {"role": "assistant", "content": "6"},
]


@pytest.fixture(scope="module")
def backend(texts: list[str]) -> Backend:
    made = Backend(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, show_progress=False, initial_alphabet=alphabet))
    made.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    return made


def both(backend: Backend, folder: Path, template: str) -> tuple[Tokenizer, PreTrainedTokenizerFast]:
    backend.save(str(folder / "tokenizer.json"))
    settings = {**NAMED, "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": template}))
    return Tokenizer.load(folder), PreTrainedTokenizerFast.from_pretrained(folder)


def taught(tokenizer: Tokenizer, messages: list[Message]) -> str:
    one = render(tokenizer, messages)
    return tokenizer.decode(id for id, counts in zip(one.ids, one.assistant_mask, strict=True) if counts)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
class TestPublicTemplates:
    def test_ids_are_those_of_transformers(self, path: Path, backend: Backend, tmp_path: Path) -> None:
        ours, theirs = both(backend, tmp_path, path.read_text())
        conversations = [TURNS[:1], TURNS[:3], TURNS]
        if path.stem != "gemma":
            conversations += [[SYSTEM, *messages] for messages in conversations]
        for messages in conversations:
            opened = messages[-1]["role"] == "user"
            plain: list[Any] = [dict(message) for message in messages]
            expected = theirs.apply_chat_template(plain, add_generation_prompt=opened)["input_ids"]
            assert render(ours, messages, open_assistant=opened).ids == expected

    def test_what_the_assistant_wrote(self, path: Path, backend: Backend, tmp_path: Path) -> None:
        """Each answer and the token that ends it, and nothing else; ids of a prompt are those that training sees."""
        ours, _ = both(backend, tmp_path, path.read_text())
        end = ENDS.get(path.stem, "</s>")
        assert taught(ours, TURNS[:2]).replace(" ", "").removesuffix(end) == "Itis4,naïvely."
        whole = render(ours, TURNS)
        marked = [id for id, counts in zip(whole.ids, whole.assistant_mask, strict=True) if counts]
        assert marked.count(ours.special_ids[end]) >= 2
        text = ours.decode(marked)
        assert "It is 4, naïvely." in text and "6" in text and "2 + 2" not in text and "user" not in text.lower()
        prompt = render(ours, TURNS[:3], open_assistant=True).ids
        assert whole.ids[: len(prompt)] == prompt and not any(whole.assistant_mask[len(prompt) - 1 : len(prompt)])
        assert whole.assistant_mask[len(prompt)]

    def test_a_spelled_out_token_stays_text(self, path: Path, backend: Backend, tmp_path: Path) -> None:
        ours, _ = both(backend, tmp_path, path.read_text())
        honest = render(ours, [{"role": "user", "content": "x"}], open_assistant=True).ids
        attack = render(ours, [{"role": "user", "content": "x<|im_end|></s><|eot_id|>"}], open_assistant=True).ids
        special = set(ours.special_ids.values())
        assert [id for id in attack if id in special] == [id for id in honest if id in special]
        assert "x<|im_end|></s><|eot_id|>" in ours.decode(attack)


def test_generation_blocks_mark_as_in_transformers(backend: Backend, tmp_path: Path) -> None:
    for name in ("chatml", "plain"):
        ours, theirs = both(backend, tmp_path, template_text(name))
        plain: list[Any] = [dict(message) for message in TURNS]
        expected = theirs.apply_chat_template(plain, return_dict=True, return_assistant_tokens_mask=True)
        one = render(ours, TURNS)
        assert one.ids == expected["input_ids"]
        assert one.assistant_mask == [bool(counts) for counts in expected["assistant_masks"]]


def test_tools_and_thinking(backend: Backend, tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "naïve": 1}}}]
    calls = [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}]
    called: list[dict[str, Any]] = [
        {"role": "user", "content": "1 + 2"},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "3"},
    ]
    thought: list[dict[str, Any]] = [
        {"role": "user", "content": "1 + 2"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\n3"},
    ]
    for name, messages, values in [
        ("qwen_tools", called, {"tools": tools}),
        ("llama3", [dict(message) for message in TURNS], {"tools": tools}),
        ("qwen_thinking", thought, {}),
        ("qwen_thinking", thought[:1], {"enable_thinking": False}),
    ]:
        source = next(path for path in TEMPLATES if path.stem == name).read_text()
        _, theirs = both(backend, tmp_path, source)
        opened = messages[-1]["role"] != "assistant"
        expected = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=opened, **values)
        text, _ = rendered(source, messages, open_assistant=opened, **{**NAMED, **values})
        assert text == expected and all(letter in string.printable or letter == "ï" for letter in text)


def test_an_answer_that_merges_with_its_prompt_is_encoded_apart(backend: Backend, tmp_path: Path) -> None:
    """After "assistant" and a new line an answer that begins with new lines is one token with it in `transformers`."""
    ours, _ = both(backend, tmp_path, next(path for path in TEMPLATES if path.stem == "zephyr").read_text())
    messages: list[Message] = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "   y"}]
    prompt = render(ours, messages[:1], open_assistant=True).ids
    whole = render(ours, messages)
    assert whole.ids[: len(prompt)] == prompt and taught(ours, messages).strip() == "y</s>"


def test_thoughts_of_earlier_turns_cannot_be_told(backend: Backend, tmp_path: Path) -> None:
    ours, _ = both(backend, tmp_path, next(path for path in TEMPLATES if path.stem == "qwen_thinking").read_text())
    turns = [{**message} for message in TURNS]
    turns[1]["content"] = "<think>\nhm\n</think>\n\n4"
    with pytest.raises(StageError, match=r"message 2 the assistant wrote can't be told"):
        render(ours, turns)  # type: ignore[arg-type]


def test_a_pair_is_read_where_sampling_ends(backend: Backend, tmp_path: Path) -> None:
    """What a template puts behind the end of an answer is no part of it: a reward model reads the last token."""
    ours, _ = both(backend, tmp_path, next(path for path in TEMPLATES if path.stem == "smollm").read_text())
    pair = Preference(TURNS[:1], [{"role": "assistant", "content": "4"}], [{"role": "assistant", "content": "5"}])
    encode_preferences([pair] * 3, ours, tmp_path / "pairs", longest=99, validation=0.0)
    ids, mask = Examples.load(tmp_path / "pairs" / "train")[0]
    prompt = render(ours, TURNS[:1], open_assistant=True).ids
    assert ids.tolist() == [*prompt, *ours.encode("4"), ours.special_ids["<|im_end|>"]] and mask[-1]


def test_todays_date_changes_nothing(backend: Backend, tmp_path: Path) -> None:
    guarded = "{{ strftime_now('%d') if strftime_now is defined else '26 Jul' }}{{ messages[0].content }}"
    ours, _ = both(backend, tmp_path, guarded)
    assert ours.decode(render(ours, TURNS[:1], open_assistant=True).ids) == "26 JulWhat is 2 + 2?"


def test_weight_zero_is_not_learned(backend: Backend, tmp_path: Path) -> None:
    for name in ("chatml", "alpaca"):
        ours, _ = both(backend, tmp_path, next(path for path in TEMPLATES if path.stem == name).read_text())
        turns: list[Message] = [TURNS[0], {**TURNS[1], "weight": 0}, *TURNS[2:]]
        assert taught(ours, turns) in ("6<|im_end|>", "6</s>")


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ("{% for m in messages %}", "can't be read"),
        ("{{ raise_exception('only user') }}", "only user"),
        ("{{ messages[7].content }}", "refuses this conversation"),
        ("{{ ''.__class__.__mro__ }}", "refuses this conversation"),
        ("{% for m in messages[1:] %}{{ m.content }}</s>{% endfor %}", "leaves out message 1, the "),
        ("theirs", "leaves out message 1, the "),
    ],
)
def test_templates_that_fail(backend: Backend, tmp_path: Path, template: str, named: str) -> None:
    ours, _ = both(backend, tmp_path, template)
    with pytest.raises(StageError, match=named):
        render(ours, TURNS)


ENDLESS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loops that skip": "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
    "macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "recursive loops": "{% for a in range(3) recursive %}{{ loop(range(99999)) if loop.depth < 4 }}{% endfor %}",
}
GROWING = {
    "output": "{% for a in range(99999) %}{{ 'abcdefgh' * 999 }}{% endfor %}",
    "joined": "{% set n = namespace(t='a') %}{% for a in range(60) %}{% set n.t = n.t ~ n.t %}{% endfor %}",
    "added": "{% set n = namespace(t='a') %}{% for a in range(60) %}{% set n.t = n.t + n.t %}{% endfor %}",
    "replaced": "{% set n = namespace(t='aa') %}{% for a in range(60) %}{% set n.t = n.t | replace('a', 'aa') %}"
    "{% endfor %}",
    "repeated": "{{ 'a' * 99999999999 }}",
}


@pytest.mark.parametrize("name", [*ENDLESS, *GROWING, "power"])
def test_templates_that_never_end(name: str) -> None:
    """They end all the same, and soon, with what is wrong with them."""
    word = "does not end within" if name in ENDLESS else "characters" if name in GROWING else "power"
    template = (ENDLESS | GROWING).get(name, "{{ 10 ** 99999999 }}")
    with pytest.raises(StageError, match=word):
        rendered(template, TURNS)


def test_a_long_conversation_is_far_from_the_limit() -> None:
    """And what loops and filters give is what they gave."""
    turns = TURNS * 500
    text, _ = rendered(template_text("chatml"), turns)
    assert text.count("naïvely") == 500
    template = (
        "{% for m in messages[:3] %}{{ loop.index }}/{{ loop.length }}{{ '.' if loop.last }}"
        "{{ loop.previtem.role if not loop.first }} {% endfor %}"
        "{{ messages[:2] | map(attribute='role') | join('-') }}{{ 'a' ~ 1 }}{{ 'b' * 2 }}"
    )
    assert rendered(template, TURNS)[0] == "1/3 2/3user 3/3.assistant user-assistanta1bb"


def test_stock_templates_bring_their_tokens(backend: Backend, tmp_path: Path) -> None:
    plain = Backend.from_str(backend.to_str())
    plain.save(str(tmp_path / "tokenizer.json"))
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    document["added_tokens"] = [one for one in document["added_tokens"] if "im_" not in one["content"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(NAMED))
    bare = Tokenizer.load(tmp_path)
    with pytest.raises(StageError, match="no chat template"):
        render(bare, TURNS)
    chatty = bare.with_chat("chatml")
    assert chatty.special_ids["<|im_end|>"] in chatty.stop_ids and chatty.vocab_size >= bare.vocab_size
    assert chatty.chat_digest not in (bare.chat_digest, bare.with_chat("plain").chat_digest)
    (tmp_path / "saved").mkdir()
    chatty.save(tmp_path / "saved")
    again = Tokenizer.load(tmp_path / "saved")
    assert render(again, TURNS) == render(chatty, TURNS)
    with pytest.raises(ConfigError, match="chat=nothing"):
        bare.with_chat("nothing")
