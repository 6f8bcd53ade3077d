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
        "versions": {"sft, reward, dpo, pairs, kto, group": "1.16.0", "ppo": "1.12.0", "classic": "0.11.4"},
        "sft": sft(draw),
        "reward": reward(draw),
        "dpo": dpo(draw),
        "ppo": ppo(draw, old / "trl/experimental/ppo/ppo_trainer.py"),
        "classic": classic(draw, older / "trl"),
        "without_reference": without_reference(draw),
        "kto": kto(draw),
        "group": group(draw),
    }
    path = Path(__file__).with_name("trl_numbers.json")
    path.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


def stand_in(**more: Any) -> Any:
    """What a trainer's method looks at beside its inputs."""
    same = SimpleNamespace(
        device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x, num_processes=1, parallelism_config=None
    )
    return SimpleNamespace(
        accelerator=same, model=SimpleNamespace(training=True, _modules={}), _metrics={"train": defaultdict(list)},
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
    policy, reference = draw(2 * PAIRS, LENGTH).requires_grad_(), draw(2 * PAIRS, LENGTH)
    numbers: dict[str, Any] = {
        "policy": policy.tolist(), "reference": reference.tolist(), "mask": mask.tolist(), "beta": 0.3,
        "label_smoothing": 0.1,
    }  # fmt: skip
    for kind in ("sigmoid", "ipo", "hinge", "robust", "sigmoid_norm"):
        losses, policy.grad = [], None
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
            loss.backward()
            rewards = trainer._metrics["train"]
            for name in ("rewards/chosen", "rewards/rejected"):
                numbers.setdefault(name, []).append(rewards[name][0])
        numbers[kind], numbers[f"{kind}/gradient"] = losses, policy.grad.tolist()
    for name in ("rewards/chosen", "rewards/rejected"):
        numbers[name] = numbers[name][:PAIRS]
    return numbers


def without_reference(draw: Any) -> dict[str, Any]:
    """SimPO and ORPO, from logits on. There are no prompts: TRL's ORPO fine-tunes on their tokens too."""
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer

    mask = torch.cat([MASK, MASK.flip(1)])
    logits = draw(2 * PAIRS, LENGTH + 1, VOCABULARY).requires_grad_()
    tokens = torch.arange(2 * PAIRS * (LENGTH + 1)).view(2 * PAIRS, LENGTH + 1) % VOCABULARY
    labels = torch.where(torch.cat([torch.zeros(2 * PAIRS, 1, dtype=torch.bool), mask], dim=1), tokens, -100)
    numbers: dict[str, Any] = {
        "logits": logits.tolist(), "tokens": tokens.tolist(), "mask": mask.tolist(), "beta": 2.0, "gamma": 0.7,
    }  # fmt: skip
    for kind in ("simpo", "orpo"):
        logits.grad, losses = None, []
        means = CPOTrainer.get_batch_logps(logits, labels, average_log_prob=True)
        chosen, rejected = means.chunk(2)
        if kind == "simpo":
            trainer = stand_in(loss_type="simpo", alpha=0.0, beta=2.0, simpo_gamma=0.7, label_smoothing=0.0)
            losses = CPOTrainer.cpo_loss(trainer, chosen, rejected)[0]
        else:
            for pair in range(PAIRS):
                trainer = stand_in(beta=2.0)
                trainer.odds_ratio_loss = lambda *x, trainer=trainer: ORPOTrainer.odds_ratio_loss(trainer, *x)
                one, other = chosen[pair : pair + 1], rejected[pair : pair + 1]
                forward = one, other, logits, logits, torch.nn.functional.cross_entropy(
                    logits[pair, :-1], labels[pair, 1:]
                )  # fmt: skip
                trainer.concatenated_forward = lambda *_, forward=forward: forward
                losses.append(ORPOTrainer.get_batch_loss_metrics(trainer, None, {})[0])
            losses = torch.stack(losses)
        losses.sum().backward()
        numbers[kind], numbers[f"{kind}/gradient"] = losses.tolist(), logits.grad.tolist()
    return numbers


def kto(draw: Any) -> dict[str, Any]:
    """With completions of other prompts for the KL divergence, and weights of the two classes."""
    from trl import KTOTrainer

    policy, reference, mismatched, theirs = (draw(PAIRS, LENGTH) for _ in range(4))
    policy.requires_grad_()
    completion = torch.cat([torch.zeros(PAIRS, 1, dtype=torch.bool), MASK], dim=1).long()
    inputs = {"label": torch.tensor([True, False, False, True])}
    for name in ("", "KL_"):
        for what, value in (
            ("input_ids", torch.ones_like(completion)), ("attention_mask", torch.ones_like(completion)),
            ("completion_mask", completion),
        ):  # fmt: skip
            inputs[name + what] = value
    numbers: dict[str, Any] = {
        "policy": policy.tolist(), "reference": reference.tolist(), "mismatched": mismatched.tolist(),
        "mismatched_reference": theirs.tolist(), "mask": MASK.tolist(), "label": inputs["label"].tolist(), "beta": 0.4,
        "desirable_weight": 1.3, "undesirable_weight": 0.8, "cases": [],
    }  # fmt: skip
    for shift in (0.0, 1.0):  # the estimate is clamped at 0, and is not
        queues = {"policy": [mismatched + shift, policy], "reference": [theirs, reference]}
        trainer = stand_in(
            calculate_KL=True, precompute_ref_logps=False, loss_type="kto", beta=0.4, desirable_weight=1.3,
            undesirable_weight=0.8,
            ref_model=lambda queue=queues["reference"], **_: outputs_of(queue.pop(0), MASK),
            args=SimpleNamespace(gradient_checkpointing_kwargs=None, gradient_checkpointing=False),
        )  # fmt: skip
        trainer.model.is_gradient_checkpointing = False
        trainer._compute_kl_logps = lambda *x, trainer=trainer: KTOTrainer._compute_kl_logps(trainer, *x)
        policy.grad = None
        loss = KTOTrainer._compute_loss(
            trainer, lambda queue=queues["policy"], **_: outputs_of(queue.pop(0), MASK), inputs, False
        )
        loss.backward()
        numbers["cases"].append({
            "shift": shift, "loss": loss.item(), "kl": trainer._metrics["train"]["kl"][0],
            "gradient": policy.grad.tolist(),
        })  # fmt: skip
    return numbers


def group(draw: Any) -> dict[str, Any]:
    """Groups of completions: advantages and losses of GRPO's forms, and of RLOO."""
    import trl.trainer.grpo_trainer
    import trl.trainer.rloo_trainer
    from trl import GRPOTrainer, RLOOTrainer
    from trl.rewards import get_soft_overlong_punishment
    from trl.trainer.utils import nanstd

    rewards, new, old = draw(PAIRS), draw(PAIRS, LENGTH), draw(PAIRS, LENGTH)
    new.requires_grad_()
    numbers: dict[str, Any] = {
        "rewards": rewards.tolist(), "new": new.tolist(), "old": old.tolist(), "mask": MASK.tolist(), "group_size": 2,
        "clip_range": 0.2, "clip_range_high": 0.28, "longest": 5, "advantages": {},
    }  # fmt: skip
    texts = {
        name: Path(module.__file__).read_text(encoding="utf-8")
        for name, module in (("grpo", trl.trainer.grpo_trainer), ("rloo", trl.trainer.rloo_trainer))
    }
    scale = {"group": "group", "centered": "none", "rloo": ""}
    for name, scaled in scale.items():
        space = {
            "torch": torch, "nanstd": nanstd, "rewards": rewards, "num_generations": 2,
            "self": SimpleNamespace(scale_rewards=scaled, normalize_advantages=False),
        }  # fmt: skip
        if name == "rloo":
            between(texts["rloo"], "grouped_rewards = rewards.view(-1, num_generations)", "is_std_zero = ", space)
        else:
            between(texts["grpo"], "mean_grouped_rewards = torch.nanmean(rewards.view(", "is_std_zero = ", space)
        numbers["advantages"][name] = space["advantages"].tolist()
    advantages = torch.tensor(numbers["advantages"]["centered"], dtype=torch.float64)
    common = {
        "prompt_ids": torch.ones(PAIRS, 1), "prompt_mask": torch.ones(PAIRS, 1),
        "completion_ids": torch.ones(MASK.shape), "completion_mask": MASK.long(), "advantages": advantages,
        "num_items_in_batch": MASK.sum(),
    }  # fmt: skip

    def record(name: str, loss: Tensor) -> None:
        loss.backward()
        numbers[name], numbers[f"{name}/gradient"], new.grad = loss.item(), new.grad.tolist(), None

    settings = {
        "top_entropy_quantile": 1.0, "off_policy_mask_threshold": None, "importance_sampling_level": "token",
        "beta": 0.0, "epsilon_low": 0.2, "epsilon_high": 0.28, "use_vllm": False, "max_completion_length": 5,
        "current_gradient_accumulation_steps": 1, "_entropy_bonus_enabled": False,
    }  # fmt: skip
    for kind in ("grpo", "bnpo", "dr_grpo", "dapo"):
        trainer = stand_in(loss_type=kind, args=SimpleNamespace(delta=None, steps_per_generation=1), **settings)
        trainer._get_per_token_logps_and_entropies = lambda *_, **__: (new * MASK, torch.zeros_like(new), None)
        trainer.accelerator.reduce = lambda x, **_: x
        record(kind, GRPOTrainer._compute_loss(trainer, None, common | {"old_per_token_logps": old * MASK}))
    trainer = stand_in(epsilon_low=0.2, epsilon_high=0.28)
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (new * MASK, torch.zeros_like(new), None)
    trainer.accelerator.reduce = lambda x, **_: x
    similar = old + 0.02 * (new.detach() - old)  # a completion's ratio is a product over its tokens
    record("rloo", RLOOTrainer._compute_loss(trainer, None, common | {"old_logps": (similar * MASK).sum(1)}))
    numbers["similar"] = similar.tolist()
    lengths = [1, 5, 6, 8, 9, 10]
    numbers["overlong"] = {
        "lengths": lengths, "longest": 9, "buffer": 4,
        "penalty": get_soft_overlong_punishment(9, 4)([[0] * length for length in lengths]),
    }  # fmt: skip
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
