"""Generation: the cache changes nothing, rows do not feel one another, and every row ends where it should."""

import math
import threading
from typing import Any

import pytest
import torch

from maquette.artifacts import ConfigError, StageError
from maquette.model import LanguageModel, LSTMConfig, TransformerConfig
from maquette.model.cache import KeyValueCache
from maquette.model.generation import Generation, SharedGeneration, document_prompt, generate, row_seed, stream
from maquette.model.running_batch import RowSettings, RunningBatch
from maquette.model.sampling import Sampling, bend, draw, uniform_numbers
from maquette.model.scoring import score_continuations
from maquette.text import Tokenizer, train_tokenizer
from maquette.text.config import TokenizerConfig

SIZES: dict[str, Any] = {
    "vocab_size": 272,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 48,
}
CONFIGS = {
    "plain": TransformerConfig(**SIZES),
    "token shift, grouped queries, qk norm": TransformerConfig(
        **SIZES, num_key_value_heads=2, token_shift=True, qk_norm=True, logit_softcap=20.0
    ),
    "learned positions": TransformerConfig(
        **SIZES, normalization="layernorm", positions="learned", activation="gelu", bias=True, token_shift=True
    ),
    "multi-query, relu2, tied": TransformerConfig(
        **SIZES, num_key_value_heads=1, activation="relu2", tie_word_embeddings=True
    ),
    "layernorm, biases, rotary": TransformerConfig(**SIZES, normalization="layernorm", bias=True),
    "rmsnorm, qkv biases, learned, wide heads": TransformerConfig(
        **SIZES, positions="learned", attention_bias=True, head_dim=12, num_key_value_heads=2
    ),
    "lstm": LSTMConfig(vocab_size=272, hidden_size=32, num_hidden_layers=2, max_position_embeddings=48),
}
PROMPTS = [[0, 100, 101, 102], [0], [0, 40, 41, 42, 43, 44, 45, 46, 47], [0, 100]]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([], TokenizerConfig(kind="byte"))


def build(name: str = "plain") -> LanguageModel:
    model = LanguageModel(CONFIGS[name])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return model


def without_cache(model: LanguageModel, prompt: list[int], count: int, sampling: Sampling, seed: int) -> Generation:
    """The definition: the whole text again for every token."""
    tokens, log_probs = list(prompt), []
    uniform = uniform_numbers(seed, count)
    for step in range(count):
        with torch.no_grad():
            logits = model.eval()(torch.tensor([tokens]))[:, -1]
        seen = torch.zeros_like(logits, dtype=torch.bool)
        seen[0, tokens] = True
        bent = bend(logits, sampling, seen)
        token = int(bent.argmax()) if sampling.greedy else int(draw(bent, uniform[step : step + 1]))
        log_probs.append(float(logits.log_softmax(-1)[0, token]))
        tokens.append(token)
    return Generation(tuple(prompt), tuple(tokens[len(prompt) :]), tuple(log_probs), "", "max_tokens")


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(1.0, top_p=0.9, repetition_penalty=1.3)], ids=["greedy", "sampled"]
)
@pytest.mark.parametrize("name", CONFIGS)
def test_cached_and_batched_is_what_the_model_says(name: str, sampling: Sampling) -> None:
    model = build(name)
    result = generate(model, PROMPTS, sampling=sampling, max_tokens=12, seeds=[5, 6, 7, 8], stop_ids=())
    for row, prompt, seed in zip(result, PROMPTS, (5, 6, 7, 8), strict=True):
        expected = without_cache(model, prompt, 12, sampling, seed)
        assert row.tokens == expected.tokens
        assert row.log_probs == pytest.approx(expected.log_probs, abs=1e-5)
        assert (row.prompt, row.text, row.finish_reason) == (tuple(prompt), "", "max_tokens")


def test_log_probs_are_those_of_scoring() -> None:
    model = build()
    result = generate(model, PROMPTS, sampling=Sampling(temperature=2.0, top_k=50), max_tokens=10, stop_ids=())
    scores = score_continuations(model, [(row.prompt, row.tokens) for row in result])
    for row, score in zip(result, scores, strict=True):
        assert row.log_probs == pytest.approx(score.log_probs.tolist(), abs=1e-5)


def test_seeds() -> None:
    model, hot = build(), Sampling(temperature=1.5)
    first = generate(model, PROMPTS, sampling=hot, max_tokens=10, seed=3)
    assert first == generate(model, PROMPTS, sampling=hot, max_tokens=10, seed=3)
    assert [row.tokens for row in first] != [
        row.tokens for row in generate(model, PROMPTS, sampling=hot, max_tokens=10)
    ]
    same_prompt = generate(model, [[0]] * 5, sampling=hot, max_tokens=10)
    assert len({row.tokens for row in same_prompt}) == 5
    alone = generate(model, PROMPTS[2:3], sampling=hot, max_tokens=10, seeds=[row_seed(3, 2)])
    assert alone[0].tokens == first[2].tokens
    longer = generate(model, PROMPTS[2:3], sampling=hot, max_tokens=20, seeds=[row_seed(3, 2)])
    assert longer[0].tokens[:10] == first[2].tokens
    torch.manual_seed(1)
    state = torch.get_rng_state()
    generate(model, PROMPTS, sampling=hot, max_tokens=3)
    assert torch.equal(state, torch.get_rng_state()), "nobody else's random numbers are touched"


def test_frequencies_are_those_of_the_model() -> None:
    model = build()
    with torch.no_grad():
        expected = model(torch.tensor([PROMPTS[0]]))[0, -1].softmax(-1)
    result = generate(model, [PROMPTS[0]] * 4000, sampling=Sampling(temperature=1.0), max_tokens=1)
    counts = torch.tensor([row.tokens[0] for row in result]).bincount(minlength=272) / 4000
    assert (counts - expected).abs().sum() < 0.3
    assert (counts - expected).abs().max() < 0.03


@pytest.mark.parametrize("name", ["plain", "learned positions", "lstm"])
def test_the_context_is_not_exceeded(name: str) -> None:
    """Each row goes on to the end of its own context, also when longer ones have ended."""
    model = build(name)
    prompts = [[0] * 5, [0] * 40, [0] * 47]
    result = generate(model, prompts, stop_ids=())
    assert [len(row.tokens) for row in result] == [43, 8, 1]
    assert {row.finish_reason for row in result} == {"context"}
    assert result[0].tokens == without_cache(model, prompts[0], 43, Sampling(), 0).tokens
    assert [row.finish_reason for row in generate(model, prompts, max_tokens=8, stop_ids=())] == [
        "max_tokens", "max_tokens", "context",
    ]  # fmt: skip


def test_stop_ids() -> None:
    model = build()
    free = generate(model, PROMPTS, max_tokens=12, stop_ids=())
    stop = free[0].tokens[4]
    for row, stopped in zip(free, generate(model, PROMPTS, max_tokens=12, stop_ids=[stop]), strict=True):
        if stop in row.tokens:
            assert stopped.tokens == row.tokens[: row.tokens.index(stop) + 1]
            assert stopped.finish_reason == "stop_id"
        else:
            assert stopped == row


def test_text(tokenizer: Tokenizer) -> None:
    """Text is what the tokenizer makes of the tokens, in whole characters, without special tokens."""
    model = build()
    result = generate(model, PROMPTS * 8, tokenizer=tokenizer, sampling=Sampling(temperature=5.0), stop_ids=[0, 5])
    for row in result:
        tokens = row.tokens[:-1] if row.finish_reason == "stop_id" else row.tokens
        assert row.text == tokenizer.decode(tokens, skip_special=True)
    assert "�" in "".join(row.text for row in result)
    pieces: dict[int, str] = {}
    for piece in stream(model, PROMPTS * 8, tokenizer=tokenizer, sampling=Sampling(temperature=5.0), stop_ids=[0, 5]):
        pieces[piece.row] = pieces.get(piece.row, "") + piece.text
    assert [pieces[row] for row in range(len(result))] == [row.text for row in result]


def test_stop_ids_come_from_the_tokenizer(tokenizer: Tokenizer) -> None:
    result = generate(build(), [[0]] * 200, tokenizer=tokenizer, sampling=Sampling(temperature=100.0))
    ended = [row for row in result if row.finish_reason == "stop_id"]
    assert ended and {row.tokens[-1] for row in ended} == {0, 5}
    assert all(not tokenizer.stop_ids & set(row.tokens[:-1]) for row in result)


def test_stop_strings(tokenizer: Tokenizer) -> None:
    """A stop string of several tokens ends its row and is not in the text."""
    model = build()
    sampling = Sampling(temperature=0.8, top_k=30)
    free = generate(model, PROMPTS, tokenizer=tokenizer, sampling=sampling, max_tokens=30, stop_ids=())
    stop = free[2].text[6:9]
    assert len(stop) == 3
    result = generate(model, PROMPTS, tokenizer=tokenizer, sampling=sampling, max_tokens=30, stop_ids=(), stop=[stop])
    for row, stopped in zip(free, result, strict=True):
        before, match, _ = row.text.partition(stop)
        assert stopped.text == before
        assert stopped.finish_reason == ("stop_string" if match else "max_tokens")
        assert stopped.tokens == row.tokens[: len(stopped.tokens)]
    assert "stop_string" in {row.finish_reason for row in result}


def test_evaluation_mode_meanwhile() -> None:
    model = LanguageModel(TransformerConfig(**SIZES, dropout=0.5)).train()
    first = generate(model, PROMPTS, max_tokens=5)
    assert model.training
    assert first == generate(model.eval(), PROMPTS, max_tokens=5)
    assert not model.training
    pieces = stream(model.train(), PROMPTS, max_tokens=5)
    next(pieces)
    pieces.close()
    assert model.training, "also when nobody reads on"


def test_training_goes_on_after_generation() -> None:
    model = build()
    generate(model, PROMPTS, max_tokens=3)
    model(torch.tensor([PROMPTS[0]])).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_prompts_as_documents(tokenizer: Tokenizer) -> None:
    assert document_prompt(tokenizer, "ab") == [0, *tokenizer.encode("ab")]
    assert document_prompt(tokenizer, "") == [0]


def test_no_prompts() -> None:
    assert generate(build(), []) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": [[0], []]}, r"Prompt 2 is empty"),
        ({"prompts": [[0] * 48]}, r"Prompt 1 has 48 tokens; the model's context holds 48"),
        ({"prompts": [[0]], "max_tokens": 0}, r"max_tokens=0"),
        ({"prompts": [[0]], "stop": ["x"]}, r"Stop strings need the tokenizer"),
        ({"prompts": [[0]], "seeds": [1, 2]}, r"2 seeds for 1 prompts"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        generate(build(), **arguments)


UNEVEN = [[0, *range(20, 20 + length)] for length in (3, 30, 1, 12, 2, 40, 5, 8, 1, 25, 3, 17)]


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_take_the_places_of_those_that_have_ended(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And become what they become beside others, also those with longer prompts than anything read before."""
    monkeypatch.setattr("maquette.model.generation._FREE_SHARE_ON_CPU", 0.25)  # as elsewhere
    model, hot = build(name), Sampling(1.2)
    stop = range(0, 272, 9)  # rows of very different lengths
    together = generate(model, UNEVEN, sampling=hot, seed=4, stop_ids=stop)
    assert len({len(row.tokens) for row in together}) > 4
    for batch in (1, 3, 5):
        rows = generate(model, UNEVEN, sampling=hot, seed=4, stop_ids=stop, batch=batch)
        for row, other in zip(rows, together, strict=True):
            assert (row.tokens, row.finish_reason) == (other.tokens, other.finish_reason)
            assert row.log_probs == pytest.approx(other.log_probs, abs=1e-5)


def test_fewer_steps_where_rows_replace_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maquette.model.generation._FREE_SHARE_ON_CPU", 0.25)
    model, steps = build(), []
    model.core.get_submodule("layers.0.feed_forward").register_forward_hook(
        lambda module, inputs, output: steps.append(len(output))
    )
    limits = [1, 20] * 6
    prompts = [[0] * (48 - limit) for limit in limits]
    generate(model, prompts, stop_ids=(), batch=4)
    assert sum(steps) < 1.4 * sum(limits)  # four at a time, each until the longest has ended: 1.9


def test_equal_prompts_are_read_once() -> None:
    model, read = build(), []
    model.core.register_forward_hook(lambda module, inputs, output: read.append(tuple(inputs[0].shape)))
    prompts, hot = [PROMPTS[0]] * 4 + [PROMPTS[2]] * 4, Sampling(1.5)
    rows = generate(model, prompts, sampling=hot, max_tokens=8, seed=2, stop_ids=())
    assert read == [(2, 9)]
    for number, row in enumerate(rows):
        alone = generate(model, [prompts[number]], sampling=hot, max_tokens=8, seeds=[row_seed(2, number)], stop_ids=())
        assert row.tokens == alone[0].tokens
    assert len({row.tokens for row in rows}) > 4


def test_rows_with_samplings_of_their_own() -> None:
    """As a server's: greedy, hot and penalised rows beside each other, and one that comes later."""
    model = build()
    settings = [
        RowSettings(PROMPTS[0], 9), RowSettings(PROMPTS[2], 9, Sampling(1.5), 7, top=2),
        RowSettings(PROMPTS[1], 9, Sampling(1.0, top_k=40, repetition_penalty=1.4), 8),
    ]  # fmt: skip
    late = RowSettings(PROMPTS[3], 6, Sampling(0.0, repetition_penalty=2.0))
    batch, tokens = RunningBatch(model.eval()), [list[int]() for _ in range(4)]
    for step in range(9):
        made = batch.exchange((), settings) if step == 0 else batch.step()[0]
        assert [len(likely) for likely in made.likely][:3] == [0, 2, 0]
        for place, token in enumerate(made.tokens):
            tokens[place].append(token)
        if step == 2:
            tokens[3] += batch.exchange(range(3), [late]).tokens
    for row, made_of in zip([*settings, late], tokens, strict=True):
        expected = without_cache(model, list(row.prompt), row.limit, row.sampling, row.seed)
        assert tuple(made_of)[: row.limit] == expected.tokens


def test_in_half_precision_nothing_is_cast_again_for_each_token() -> None:
    """Neither what is kept of the text, nor the weights of a model that is not trained."""
    model = build().requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        cache = model.new_cache(2, 8)
        assert isinstance(cache, KeyValueCache) and cache.keys.dtype == torch.bfloat16
        with torch.autograd.profiler.profile(record_shapes=True) as profile:
            rows = generate(model, PROMPTS, max_tokens=12, stop_ids=())
    events = [event for event in profile.function_events if event.name == "aten::_to_copy"]
    casts = [tuple(event.input_shapes[0]) for event in events]
    matrices = [tuple(one.shape) for one in model.parameters() if one.dim() == 2]
    assert casts and sum(casts.count(shape) for shape in set(matrices)) <= len(matrices)
    assert all(math.prod(shape) < 4 * 32 * 16 or shape in matrices for shape in casts), "not all that was kept"
    assert not any(one.requires_grad for one in model.parameters())
    exact = generate(model, PROMPTS, max_tokens=12, stop_ids=())
    assert [row.log_probs[0] for row in rows] == pytest.approx([row.log_probs[0] for row in exact], abs=0.05)


def test_callers_share_a_model_and_do_not_feel_one_another() -> None:
    """In threads of their own, one of whom reads two tokens and goes."""
    model, steps = build(), []
    model.core.get_submodule("layers.0.feed_forward").register_forward_hook(lambda *_: steps.append(1))
    shared, results = SharedGeneration(model, capacity=3), dict[int, list[int]]()
    options: list[dict[str, Any]] = [
        {"sampling": Sampling(1.5), "seed": number, "max_tokens": 5 + 4 * number, "stop_ids": ()} for number in range(6)
    ]
    expected = [[piece.token for piece in stream(model, [PROMPTS[n % 4]], **options[n])] for n in range(6)]
    alone = len(steps)

    def read(number: int) -> None:
        results[number] = [piece.token for piece in shared.stream([PROMPTS[number % 4]], **options[number])]

    impatient = shared.stream([PROMPTS[0]], max_tokens=40)
    assert [next(impatient).row, next(impatient).row] == [0, 0]
    threads = [threading.Thread(target=read, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    impatient.close()  # type: ignore[attr-defined, unused-ignore]
    for thread in threads:
        thread.join()
    assert [results[number] for number in range(6)] == expected
    assert len(steps) - alone < 0.9 * alone
    assert not shared._made and not shared._together.waiting
    with torch.no_grad():
        model.core.get_parameter("norm.weight").fill_(torch.nan)
    with pytest.raises(StageError, match="NaN"):
        next(shared.stream([[0]]))
    with torch.no_grad():
        model.core.get_parameter("norm.weight").fill_(1.0)
    assert next(shared.stream([[0]])).row == 0
