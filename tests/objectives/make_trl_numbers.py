"""Writes `trl_numbers.json`: random inputs, and what TRL makes of them. Run by hand where TRL is installed:

    pip install torch==2.13.0 trl==1.16.0
    pip install --no-deps --target OLD trl==1.12.0        (the last with a PPO trainer)
    pip install --no-deps --target OLDER trl==0.11.4      (classic PPO: its GAE, its adaptive KL coefficient)
    python tests/objectives/make_trl_numbers.py OLD OLDER

TRL's losses are inside its trainers. Of 1.16 the trainers' own methods are called, on stand-ins for model and
accelerator; of the older two, which do not import beside newer libraries, the very lines are cut out of their files and
run.
"""

import ast
import json
import sys
import textwrap
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

PAIRS, LENGTH, VOCABULARY = 4, 6, 7
MASK = torch.tensor([[0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0]], dtype=torch.bool)


def main(old: Path, older: Path) -> None:
    generator = torch.Generator().manual_seed(20)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    numbers = {
        "versions": {"sft, reward, dpo": "1.16.0", "ppo": "1.12.0", "classic": "0.11.4"},
        "sft": sft(draw),
        "reward": reward(draw),
        "dpo": dpo(draw),
        "ppo": ppo(draw, old / "trl/experimental/ppo/ppo_trainer.py"),
        "classic": classic(draw, older / "trl"),
    }
    path = Path(__file__).with_name("trl_numbers.json")
    path.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


def stand_in(**more: Any) -> Any:
    """What a trainer's method looks at beside its inputs."""
    same = SimpleNamespace(
        device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x, num_processes=1, parallelism_config=None
    )
    return SimpleNamespace(
        accelerator=same, model=SimpleNamespace(training=True), _metrics={"train": defaultdict(list)},
        _total_train_tokens=0, _tp_size=1, aux_loss_enabled=False, compute_loss_func=None, label_smoother=None, **more,
    )  # fmt: skip


def outputs_of(log_probs: Tensor, mask: Tensor) -> Any:
    """A language model's outputs as TRL's fused head gives them: zero where nothing is to be predicted."""
    zeros = torch.zeros_like(log_probs)
    return SimpleNamespace(
        log_probs=log_probs * mask, label_mask=mask, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool(),
        log_sum_sq_probs=zeros,
    )  # fmt: skip


def sft(draw: Any) -> dict[str, Any]:
    from trl import SFTTrainer
    from trl.trainer.utils import selective_log_softmax

    logits = draw(PAIRS, LENGTH, VOCABULARY)
    tokens = torch.arange(PAIRS * LENGTH).view(PAIRS, LENGTH) % VOCABULARY
    log_probs = selective_log_softmax(logits, tokens)
    trainer = stand_in(args=SimpleNamespace(loss_type="nll", average_tokens_across_devices=False, max_length=None))
    trainer.loss = None
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": tokens}
    loss = SFTTrainer.compute_loss(trainer, lambda **_: outputs_of(log_probs, MASK), inputs)
    return {
        "logits": logits.tolist(), "tokens": tokens.tolist(), "mask": MASK.tolist(), "log_probs": log_probs.tolist(),
        "loss": loss.item(),
    }  # fmt: skip


def reward(draw: Any) -> dict[str, Any]:
    from trl import RewardTrainer

    rewards, margin = draw(2 * PAIRS), draw(PAIRS).abs()

    def loss(centering: float | None, **inputs: Tensor) -> float:
        trainer = stand_in(args=SimpleNamespace(center_rewards_coefficient=centering))
        outputs = SimpleNamespace(logits=rewards[:, None])
        values = {"attention_mask": torch.ones(2 * PAIRS, LENGTH)} | inputs
        return RewardTrainer.compute_loss(trainer, lambda **_: outputs, values).item()

    return {
        "chosen": rewards[:PAIRS].tolist(), "rejected": rewards[PAIRS:].tolist(), "margin": margin.tolist(),
        "loss": loss(None), "loss_centering_0.1": loss(0.1), "loss_margin": loss(None, margin=margin),
    }  # fmt: skip


def dpo(draw: Any) -> dict[str, Any]:
    from trl import DPOTrainer

    mask = torch.cat([MASK, MASK.flip(1)])
    policy, reference = draw(2 * PAIRS, LENGTH), draw(2 * PAIRS, LENGTH)
    numbers: dict[str, Any] = {
        "policy": policy.tolist(), "reference": reference.tolist(), "mask": mask.tolist(), "beta": 0.3,
        "label_smoothing": 0.1,
    }  # fmt: skip
    for kind in ("sigmoid", "ipo", "hinge", "robust", "sigmoid_norm"):
        losses = []
        for pair in range(PAIRS):
            rows = [pair, PAIRS + pair]
            trainer = stand_in(
                precompute_ref_logps=False, ld_alpha=None, f_divergence_type="reverse_kl", loss_types=[kind],
                loss_weights=[1.0], beta=0.3, label_smoothing=0.1, use_weighting=False,
                ref_model=lambda rows=rows, **_: outputs_of(reference[rows], mask[rows]),
                args=SimpleNamespace(gradient_checkpointing_kwargs=None, gradient_checkpointing=False),
            )  # fmt: skip
            trainer.model.is_gradient_checkpointing = False
            completion = torch.cat([torch.zeros(2, 1, dtype=torch.bool), mask[rows]], dim=1).long()
            inputs = {
                "input_ids": torch.ones_like(completion), "attention_mask": torch.ones_like(completion),
                "completion_mask": completion,
            }  # fmt: skip
            loss = DPOTrainer._compute_loss(
                trainer, lambda rows=rows, **_: outputs_of(policy[rows], mask[rows]), inputs, False
            )
            losses.append(loss.item())
            rewards = trainer._metrics["train"]
            for name in ("rewards/chosen", "rewards/rejected"):
                numbers.setdefault(name, []).append(rewards[name][0])
        numbers[kind] = losses
    for name in ("rewards/chosen", "rewards/rejected"):
        numbers[name] = numbers[name][:PAIRS]
    return numbers


def ppo(draw: Any, file: Path) -> dict[str, Any]:
    """Answers that fill their rows: for shorter ones TRL puts the score one place after the last token."""
    text = file.read_text(encoding="utf-8")
    space: dict[str, Any] = {"torch": torch, "empty_cache": lambda: None}
    functions(text, ("masked_mean", "masked_var", "masked_whiten"), space)
    full, none = torch.full((PAIRS,), LENGTH - 1), torch.zeros(PAIRS, LENGTH, dtype=torch.bool)
    inputs = {
        "logprobs": draw(PAIRS, LENGTH), "ref_logprobs": draw(PAIRS, LENGTH), "values": draw(PAIRS, LENGTH),
        "scores": draw(PAIRS),
    }  # fmt: skip
    args = SimpleNamespace(
        kl_estimator="k1", kl_coef=0.2, whiten_rewards=False, gamma=0.97, lam=0.9, cliprange=0.2, cliprange_value=0.2
    )
    space |= inputs | {
        "args": args, "responses": none, "sequence_lengths": full, "sequence_lengths_p1": full + 1,
        "padding_mask": none, "padding_mask_p1": none,
    }  # fmt: skip
    between(text, "# 4. compute rewards", "empty_cache()", space)
    numbers = {name: value.tolist() for name, value in inputs.items()}
    numbers |= {"kl_coefficient": 0.2, "gamma": 0.97, "gae_lambda": 0.9, "clip_range": 0.2}
    numbers |= {name: space[name].tolist() for name in ("kl", "rewards", "returns")}
    numbers["whitened_advantages"] = space["advantages"].tolist()
    k3 = dict(space) | {"args": SimpleNamespace(**{**vars(args), "kl_estimator": "k3"})}
    between(text, "# 4. compute rewards", "rewards = non_score_reward.clone()", k3)
    numbers["kl_k3"] = k3["kl"].tolist()
    # The minibatch, with the classic mask in place of TRL's two.
    new = {
        "new_logprobs": inputs["logprobs"] + 0.3 * draw(PAIRS, LENGTH),
        "vpred": inputs["values"] + draw(PAIRS, LENGTH),
    }
    space |= new | {
        "padding_mask": ~MASK, "padding_mask_p1": ~MASK, "micro_batch_inds": torch.arange(PAIRS),
        "mb_values": inputs["values"], "mb_return": space["returns"], "mb_advantage": space["advantages"],
        "mb_logprobs": inputs["logprobs"],
    }  # fmt: skip
    between(text, "vpredclipped = torch.clamp(", "loss = pg_loss + args.vf_coef * vf_loss", space)
    between(text, "pg_clipfrac = masked_mean(", "prob_dist = torch", space)
    numbers |= {name: value.tolist() for name, value in new.items()} | {"minibatch_mask": MASK.tolist()}
    return numbers | {name: space[name].item() for name in ("pg_loss", "pg_clipfrac", "vf_loss", "vf_clipfrac")}


def classic(draw: Any, folder: Path) -> dict[str, Any]:
    space: dict[str, Any] = {"torch": torch, "np": np}
    functions((folder / "core.py").read_text(encoding="utf-8"), ("masked_mean", "masked_var", "masked_whiten"), space)
    trainer = (folder / "trainer/ppo_trainer.py").read_text(encoding="utf-8")
    functions(trainer, ("compute_advantages",), space)
    functions((folder / "trainer/utils.py").read_text(encoding="utf-8"), ("AdaptiveKLController",), space)
    rewards, values = draw(PAIRS, LENGTH), draw(PAIRS, LENGTH)
    config = SimpleNamespace(whiten_rewards=False, gamma=0.98, lam=0.95)
    mask = MASK.double()
    _, advantages, returns = space["compute_advantages"](SimpleNamespace(config=config), values, rewards, mask)
    controller, path = space["AdaptiveKLController"](0.2, 6.0, 10_000), []
    measured = [3.0, 6.5, 12.0, 7.0, 5.9]
    for kl in measured:
        controller.update(kl, 256)
        path.append(float(controller.value))
    return {
        "rewards": rewards.tolist(), "values": values.tolist(), "mask": MASK.tolist(),
        "gamma": 0.98, "gae_lambda": 0.95,
        "returns": returns.tolist(), "whitened_advantages": advantages.tolist(),
        "controller": {"initial": 0.2, "target": 6.0, "horizon": 10_000, "episodes": 256, "kl": measured, "path": path},
    }  # fmt: skip


def functions(text: str, names: tuple[str, ...], space: dict[str, Any]) -> None:
    """Defines functions or classes of a source file, wherever in it they stand, in `space`."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in names:
            lines = textwrap.dedent("\n".join(text.splitlines()[node.lineno - 1 : node.end_lineno]))
            exec("from __future__ import annotations\n" + lines, space)


def between(text: str, first: str, last: str, space: dict[str, Any]) -> None:
    """Runs the lines from the one that has `first` to the one before that which has `last`."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if first in line)
    end = next(number for number, line in enumerate(lines) if number > start and last in line)
    exec(textwrap.dedent("\n".join(lines[start:end])), space)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
