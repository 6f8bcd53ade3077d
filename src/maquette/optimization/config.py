"""Settings of the optimiser and the schedule of its learning rate."""

from dataclasses import dataclass

from maquette.artifacts.settings import setting


@dataclass
class OptimizerConfig:
    kind: str = setting("adamw", "optimiser", choices=("adamw", "muon"))
    lr: float | None = setting(None, "peak learning rate of AdamW; by default the recipe's", minimum=0.0)
    muon_learning_rate: float = setting(0.02, "peak learning rate of Muon for matrices", minimum=0.0)
    muon_momentum: float = setting(0.95, "momentum of Muon", minimum=0.0, maximum=1.0)
    beta1: float = setting(0.9, "decay of the gradient's mean", minimum=0.0, maximum=1.0)
    beta2: float = setting(0.99, "decay of the squared gradient's mean", minimum=0.0, maximum=1.0)
    eps: float = setting(1e-8, "added to the root of the squared gradient's mean", minimum=0.0)
    weight_decay: float | None = setting(None, "decoupled decay of matrices; by default the recipe's", minimum=0.0)


@dataclass
class SchedulerConfig:
    kind: str = setting("linear", "course of the learning rate", choices=("linear", "cosine", "wsd", "constant"))
    warmup: float | None = setting(
        None, "share of the tokens over which the rate rises; by default the recipe's", minimum=0.0, maximum=1.0
    )
    decay: float = setting(
        0.2, "wsd: share of the tokens over which the rate falls at the end", minimum=0.0, maximum=1.0
    )
    decay_shape: str = setting("linear", "wsd: how it falls", choices=("linear", "sqrt", "cosine"))
    branches: list[str] = setting(
        list, "wsd: further token budgets, whose cooldowns branch off from this run's trunk, each a run of its own"
    )
    final: float = setting(0.0, "learning rate at the end, as a share of the peak", minimum=0.0, maximum=1.0)
