"""Predicted memory against what a step's tensors held. Measured by the counter that predictions use on tensors without
numbers, and once by PyTorch's own tracker, which shares no line with it."""

import contextlib
import dataclasses
from typing import Any

import pytest
import torch
from torch.distributed._tools.mem_tracker import MemTracker

from maquette.model import LanguageModel, ScalarModel, TransformerConfig
from maquette.model.activation_checkpointing import checkpoint_blocks
from maquette.optimization.config import AdafactorConfig, AdamWConfig, MuonConfig
from maquette.optimization.optimizers import build_optimizer
from maquette.training.profiling import Operators
from maquette.training.step_memory import Step, _loss, predict

SHAPE = TransformerConfig(
    256, hidden_size=32, num_hidden_layers=6, num_attention_heads=4, max_position_embeddings=32, token_shift=True
)
PLAIN = Step(SHAPE, rows=4, tokens=32, optimizer=AdamWConfig())
GPT2 = dataclasses.replace(
    SHAPE, normalization="layernorm", positions="learned", activation="gelu", bias=True, tie_word_embeddings=True,
    token_shift=False,
)  # fmt: skip

_CHANGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "more rows": {"rows": 16},
    "block": {"checkpointing": "block"},
    "selective": {"checkpointing": "selective", "rows": 8},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "bf16-true, block": {"precision": "bf16-true", "checkpointing": "block"},
    "accumulation": {"passes": 2},
    "muon": {"optimizer": MuonConfig()},
    "adafactor": {"optimizer": AdafactorConfig()},
    "gpt2": {"architecture": GPT2},
    "grouped, normalised": {"architecture": dataclasses.replace(SHAPE, num_key_value_heads=2, qk_norm=True)},
    "large vocabulary, logits in chunks": {
        "architecture": dataclasses.replace(SHAPE, vocab_size=4096), "logits_limit": 2**15,
    },
    "reward model": {"loss": "scalar"},
    "log-probabilities in chunks": {"loss": "log_probs", "logits_limit": 2**12},
    "policy and value function": {"loss": "log_probs", "values": True, "frozen": 1},
}  # fmt: skip

CONFIGURATIONS: dict[str, Step] = {name: dataclasses.replace(PLAIN, **changes) for name, changes in _CHANGES.items()}


def real(step: Step) -> tuple[list[Any], list[Any]]:
    kind: Any = ScalarModel if step.loss == "scalar" else LanguageModel
    models: list[Any] = [kind(step.architecture), *([ScalarModel(step.architecture)] if step.values else [])]
    for model in models:
        if step.precision == "bf16-true":
            model.bfloat16()
        checkpoint_blocks(model.core.layers, step.checkpointing)
    return models, [build_optimizer(one, step.optimizer, learning_rate=1e-3, weight_decay=0.0) for one in models]


def run(step: Step, models: list[Any], optimizers: list[Any]) -> None:
    for _ in range(step.passes):
        mixed = step.precision == "bf16-mixed"
        with torch.autocast("cpu", torch.bfloat16) if mixed else contextlib.nullcontext():
            loss = _loss(step, models)
        loss.backward()
    for one in optimizers:
        one.step()


def measured(step: Step) -> int:
    """Of the second step, with numbers and every layer."""
    models, optimizers = real(step)
    run(step, models, optimizers)
    for one in optimizers:
        one.zero_grad()
    operators = Operators()
    operators.parameters = [one for model in models for one in model.parameters()]
    with operators:
        run(step, models, optimizers)
    parts = [part for one in optimizers for part in getattr(one, "pair", [one])]
    states = sum(value.nbytes for part in parts for state in part.state.values() for value in state.values()
                 if isinstance(value, torch.Tensor))  # fmt: skip
    frozen = step.frozen * sum(one.nbytes for one in models[0].parameters())
    return operators.peak + states + frozen + sum(one.nbytes for one in operators.parameters)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_predicted_within_15_percent(name: str) -> None:
    step = CONFIGURATIONS[name]
    assert predict(step).total == pytest.approx(measured(step), rel=0.15)


def test_the_counter_agrees_with_pytorchs_own_tracker() -> None:
    step = dataclasses.replace(PLAIN, architecture=dataclasses.replace(SHAPE, num_hidden_layers=2))
    models, optimizers = real(step)
    run(step, models, optimizers)
    optimizers[0].zero_grad()
    tracker = MemTracker()
    tracker.track_external(models[0], optimizers[0])
    with tracker:
        run(step, models, optimizers)
    peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    assert measured(step) == pytest.approx(peak, rel=0.02)


def test_what_sharding_and_checkpointing_save() -> None:
    plain, half = predict(PLAIN), predict(PLAIN).sharded(2)
    assert half.parts["weights"] == plain.parts["weights"] // 2
    assert half.parts["activations"] == plain.parts["activations"]
    assert half.parts["gathered weights"] > plain.rest
    many = dataclasses.replace(PLAIN, rows=16)
    block, selective = (predict(dataclasses.replace(many, checkpointing=kind)).total for kind in ("block", "selective"))
    assert predict(many).total > selective > block
    factored = predict(dataclasses.replace(PLAIN, optimizer=AdafactorConfig()))
    assert factored.parts["optimiser states"] < predict(PLAIN).parts["optimiser states"] / 4
