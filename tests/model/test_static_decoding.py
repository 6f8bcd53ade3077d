"""Tokens chosen ahead in tensors that stay where they are, and caches of a window: the same tokens as without."""

import dataclasses
from typing import Any

import pytest
import torch

from maquette.model import LanguageModel
from maquette.model.cache import KeyValueCache
from maquette.model.running_batch import RowSettings, RunningBatch
from maquette.model.sampling import Sampling, bend, draw, uniform_numbers
from maquette.model.static_decoding import StaticDecoder, StaticSteps
from support.model_variants import VARIANTS, lively

LONG = {name: dataclasses.replace(config, max_position_embeddings=64) for name, config in VARIANTS.items()}
ROWS = [
    RowSettings([3, 1, 4, 1, 5, 9], 26), RowSettings([2, 6], 26, Sampling(1.5), 7, top=2),
    RowSettings([5, 3, 5, 8], 15, Sampling(1.0, top_k=9, top_p=0.9, repetition_penalty=1.4), 8),
]  # fmt: skip
LATE = RowSettings([7, 9, 3, 2, 3, 8, 4, 6, 2], 20, Sampling(0.8, min_p=0.05), 9)


def defined(model: LanguageModel, row: RowSettings) -> list[int]:
    """The definition: the whole text again for every token."""
    text, uniform = list(row.prompt), uniform_numbers(row.seed, row.limit)
    for step in range(row.limit):
        with torch.no_grad():
            logits = model(torch.tensor([text]))[:, -1].float()
        seen = torch.zeros_like(logits, dtype=torch.bool)
        seen[0, text] = True
        bent = bend(logits, row.sampling, seen)
        text.append(int(bent.argmax()) if row.sampling.greedy else int(draw(bent, uniform[step : step + 1])))
    return text[len(row.prompt) :]


def made(model: LanguageModel, *, ahead: bool) -> tuple[list[list[int]], RunningBatch]:
    """Three rows, one of which leaves when another comes."""
    batch, tokens = RunningBatch(model, ahead=ahead), [list[int]() for _ in range(4)]
    here, waits = [0, 1, 2], True
    chosen = [batch.exchange((), ROWS)]
    while chosen:
        for step in chosen:
            for place, token in zip(here, step.tokens, strict=True):
                tokens[place].append(token)
        if waits and len(tokens[2]) >= ROWS[2].limit:
            waits, here = False, [0, 1, 3]
            tokens[3] += batch.exchange([0, 1], [LATE]).tokens
        left = any(len(tokens[place]) < (*ROWS, LATE)[place].limit for place in here)
        chosen = batch.step() if left else []
    return [chosen[: row.limit] for chosen, row in zip(tokens, (*ROWS, LATE), strict=True)], batch


@pytest.mark.parametrize("name", ["gpt2", "qwen3", "all_at_once", "window", "local_and_global", "moe_shared"])
def test_tokens_are_those_of_the_definition(name: str) -> None:
    model = lively(LONG[name]).eval()
    expected = [defined(model, row) for row in (*ROWS, LATE)]
    assert made(model, ahead=False)[0] == expected
    tokens, batch = made(model, ahead=True)
    assert tokens == expected
    assert (batch._steps is None) == (name == "moe_shared")


def test_a_sliding_layer_keeps_its_window_alone() -> None:
    cache = lively(LONG["local_and_global"]).new_cache(3, 40)
    assert isinstance(cache, KeyValueCache)
    assert cache.keys.shape[:4] == (1, 3, 2, 40) and cache.ring_keys.shape[:4] == (1, 3, 2, 2)
    short = lively(LONG["window"]).new_cache(3, 2)
    assert isinstance(short, KeyValueCache)
    assert not short.keys.numel() and short.ring_keys.shape[:4] == (2, 3, 2, 2)


def static_steps(model: LanguageModel, device: str = "cpu") -> tuple[StaticSteps, KeyValueCache]:
    """Drawn tokens after a prompt in a cache."""
    cache, prompt = model.new_cache(2, 40, starts=torch.tensor([1, 0])), torch.ones(2, 5).long()
    assert isinstance(cache, KeyValueCache)
    model(prompt.to(device), cache=cache)

    def choose(hidden: torch.Tensor, uniform: torch.Tensor) -> Any:
        log_probs = model.logits(hidden).log_softmax(-1)
        tokens = draw(bend(log_probs, Sampling(1.2, top_k=9, top_p=0.9, min_p=0.01)), uniform[:, 0])
        values, ids = log_probs.topk(2)
        return tokens, log_probs.gather(1, tokens[:, None])[:, 0], ids, values

    uniform = torch.full((2, 30), 0.4, dtype=torch.float64, device=device)
    decoder = StaticDecoder(model.core, cache)  # type: ignore[arg-type]
    return StaticSteps(decoder, choose, torch.ones(2, device=device).long(), uniform, drawn=0, most=8), cache


@torch.no_grad()
def test_no_tensor_moves() -> None:
    steps, cache = static_steps(lively(LONG["local_and_global"]).eval())
    steps.run(1)
    parts = (*steps.state, *steps.made, cache.keys, cache.values, cache.ring_keys, cache.ring_values)
    before = [one.data_ptr() for one in parts]
    tokens = steps.run(6)[0]
    assert [one.data_ptr() for one in parts] == before
    assert tokens.shape == (6, 2) and torch.equal(steps.tokens, tokens[-1]) and cache.used == 12
    assert torch.equal(steps.decoder.column, torch.tensor([12]))


@torch.no_grad()
def test_no_step_waits_for_the_device() -> None:
    """Tensors of the meta device have a shape and no numbers: asking for one is an error."""
    steps, _ = static_steps(LanguageModel(LONG["local_and_global"]).to("meta").eval(), "meta")
    tokens = steps.run(3)[0]
    assert tokens.shape == (3, 2) and tokens.is_meta
    with pytest.raises(RuntimeError, match="meta"):
        tokens[0, 0].item()


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3", "all_at_once", "window", "local_and_global"])
@pytest.mark.parametrize("mixed", [False, True])
def test_a_captured_step_gives_the_same_tokens(name: str, mixed: bool) -> None:
    model = lively(LONG[name]).float().eval()
    expected = made(model, ahead=False)[0]
    with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
        tokens, batch = made(model.cuda(), ahead=True)
        again = made(model, ahead=True)[0]
    assert batch._steps is not None and batch._steps.graph is not None
    assert tokens == again
    assert mixed or tokens == expected
