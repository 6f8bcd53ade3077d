"""What child processes do in tests of matrices that are cut up, experts that are divided, and adapters in shards: in a
file of its own, which is quickly imported."""

from pathlib import Path
from typing import Any

from support.process_work import EXPERTS, train_variant

GRADIENTS: dict[str, dict[str, Any]] = {
    "grouped queries, norms of queries and keys, biases, soft-cap": {"tensor": 2, "model": {
        "num_attention_heads": 4, "num_key_value_heads": 2, "qk_norm": True, "bias": True, "logit_softcap": 20.0,
    }},
    "tied": {"tensor": 2, "model": {"tie_word_embeddings": True}},
    "a vocabulary that can't be divided": {"tensor": 2, "model": {"vocab_size": 97}},
    "gelu, layer norm, learned positions": {"tensor": 2, "model": {
        "activation": "gelu", "normalization": "layernorm", "positions": "learned", "bias": True,
    }},
    "experts cut up": {"tensor": 2, "model": EXPERTS},
    "experts divided": {"experts": 2, "model": EXPERTS},
    "cut up, in bfloat16": {"tensor": 2, "dtype": "bfloat16", "model": {"qk_norm": True}},
    "divided, in bfloat16": {"experts": 2, "dtype": "bfloat16", "model": EXPERTS},
    "all tokens to one process's expert": {"experts": 2, "model": EXPERTS | {"num_experts_per_tok": 1}},
}  # fmt: skip

CURVES: dict[str, dict[str, Any]] = {
    "tensor": {"tensor": 2, "z_loss": 1e-3, "accumulate": 2, "model": {
        "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "qk_norm": True,
    }},
    "tensor, tied, by muon": {"tensor": 2, "model": {"num_hidden_layers": 1, "tie_word_embeddings": True},
                              "optimizer": "muon", "checkpointing": "block"},
    "experts": {"experts": 2, "model": EXPERTS | {"num_hidden_layers": 1}, "checkpointing": "block"},
}  # fmt: skip


def train_as_one_does(folders: tuple[str, str]) -> dict[str, Any]:
    """In two processes: gradients against those of one, curves, and curves from another's checkpoints. `folders`: those
    of one process and of two."""
    one, two = folders
    return {"gradients": gradient_errors(), "curves": curves(two), "resumed": curves(one, resume=True)}


def curves(folder: str, *, resume: bool = False) -> dict[str, list[tuple[float, float]]]:
    """Loss and gradient norm of every step, or of those after the tenth from the checkpoints in `folder`."""
    return {name: train_variant(f"{folder}/{name}", **one, resume=resume) for name, one in CURVES.items()}


def run_all(settings: dict[str, Any]) -> dict[str, str]:
    """Runs of the command line, one after another: their folders."""
    from maquette.cli import train

    return {name: str(train.run(one).folder) for name, one in settings.items()}


def gradient_errors(device: str = "cpu") -> dict[str, dict[str, float]]:
    """By how much two processes differ from one, of each of `GRADIENTS` (on GPUs of those without experts, which take
    half precision there): relative errors of gradients, and absolute ones of everything else."""
    from maquette.data.process_group import join_group

    join_group("gloo" if device == "cpu" else "nccl")
    chosen = {name: one for name, one in GRADIENTS.items() if device == "cpu" or "num_experts" not in one["model"]}
    return {name: _gradient_errors(device, **one) for name, one in chosen.items()}


def _gradient_errors(
    device: str, model: dict[str, Any], tensor: int = 1, experts: int = 1, dtype: str = "float32"
) -> dict[str, float]:
    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.distributed.device_mesh import init_device_mesh

    from maquette.model import LanguageModel, MixtureOfExpertsConfig, TransformerConfig
    from maquette.model.likelihoods import next_token_loss, token_statistics
    from maquette.model.sharding import clip_gradient_norm, own_part, own_region, shard, whole

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = LanguageModel(kind(**shape), seed=3)
            for layer in self.model.core.layers if shape.get("num_experts_per_tok") == 1 else ():
                nn.init.zeros_(layer.feed_forward.router.weight)  # all are alike, and the first is taken

        def training_step(self, tokens: Any, limit: int | None) -> Any:
            hidden = self.model.core(tokens[:, :-1])
            return next_token_loss(
                hidden, self.model.head_weight, tokens[:, 1:], z_loss=1e-3, logits_limit=limit,
                logit_softcap=self.model.config.logit_softcap,
            )[0]  # fmt: skip

        def validation_step(self, tokens: Any) -> Any:
            hidden = self.model.core(tokens[:, :-1])
            each = token_statistics(hidden.flatten(0, 1), self.model.head_weight, tokens[:, 1:].flatten(), entropy=True)
            return [*each, self.model.logits(hidden)]

    shape = {
        "vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 16, "token_shift": True, **model,
    }  # fmt: skip
    kind: Any = MixtureOfExpertsConfig if "num_experts" in shape else TransformerConfig
    alone, mine = Steps().to(device), Steps().to(device)
    size, rank = dist.get_world_size(), dist.get_rank()
    names = ("shard", "tensor")
    mesh = init_device_mesh(device, (size // tensor, tensor), mesh_dim_names=names)
    expert_mesh = init_device_mesh(device, (size // experts, experts), mesh_dim_names=("replicate", "expert"))
    shard(
        mine, mesh["shard"], compute_dtype=getattr(torch, dtype), tensor=mesh["tensor"] if tensor > 1 else None,
        experts=expert_mesh if experts > 1 else None,
    )  # fmt: skip
    tokens = torch.randint(0, 96, (4, 17), generator=torch.Generator().manual_seed(0)).to(device)
    part = tokens.chunk(size // tensor)[rank // tensor]
    theirs, errors = dict(alone.named_parameters()), {"gradient": 0.0, "loss": 0.0}
    for limit in (None, 96 * 12):  # at once, and in chunks
        alone.zero_grad()
        mine.zero_grad()
        loss = alone.training_step(tokens, limit)
        loss.backward()
        own = mine.training_step(part, limit)
        own.backward()
        mean = own.detach().clone()
        dist.all_reduce(mean)
        errors["loss"] = max(errors["loss"], abs(mean.item() / size - loss.item()))
        for name, parameter in mine.named_parameters():
            if name.endswith("key.bias"):  # attention does not feel it
                continue
            expected = theirs[name].grad
            assert expected is not None and parameter.grad is not None, name
            apart = (own_part(parameter.grad) - expected[own_region(parameter)]).abs().max().item()
            errors["gradient"] = max(errors["gradient"], apart / (expected.abs().max().item() + 1e-9))
    norms = nn.utils.clip_grad_norm_(alone.parameters(), 0.1), clip_gradient_norm(mine.parameters(), 0.1)
    errors["norm"] = abs(norms[0].item() - norms[1].item())
    with torch.no_grad():
        pairs = list(zip(alone.validation_step(part), mine.validation_step(part), strict=True))
        with whole(mine):  # one process alone
            if rank == 0:
                pairs.append((alone.model(part[:, 1:]), mine.model(part[:, 1:])))
        pairs += zip(alone.validation_step(part), mine.validation_step(part), strict=True)
    errors["values"] = max((expected - value.float()).abs().max().item() for expected, value in pairs)
    worst = torch.tensor(list(errors.values()), device=device)
    dist.all_reduce(worst, dist.ReduceOp.MAX)
    return dict(zip(errors, worst.tolist(), strict=True))


def settings_of_runs(outputs: Path, base: str, source: Path, folder: Path) -> dict[str, Any]:
    """Runs that two processes share, one for each way: a sparse model's pretraining, and what comes after pretraining,
    of a model whose matrices are cut up and of an adapter."""
    from support.small_examples import example_settings
    from support.small_runs import settings

    lora = {"_target_": "peft.LoraConfig", "r": 4, "lora_alpha": 8, "lora_dropout": 0.0}
    sparse = {"kind": "moe", "num_experts": 4, "num_experts_per_tok": 2, "router_bias_update_rate": 0.01}
    runs: dict[str, Any] = {
        "pretrain, experts": settings(
            outputs, source, seed=78, trainer__log_every_n_steps=2, expert_parallel_size=2,
            **{f"model__{key}": value for key, value in sparse.items()},
        ),
    }  # fmt: skip
    for kind, changes in (("sft, tensor", {"tensor_parallel_size": 2}), ("dpo, adapter", {"adapter": lora})):
        objective = kind.partition(",")[0]
        runs[kind] = example_settings(
            outputs, objective, base, folder / f"{objective}.json", model__dropout=0.0, **changes
        )
    return runs
