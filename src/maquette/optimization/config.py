"""Settings of optimisers and learning rate schedules. Free of torch.

The dataclasses are the arguments of the classes that their `_target_` names (a test compares the two), and check what
is typed. Anyone else's optimiser or scheduler is a plain dict with a `_target_`, from a YAML file or from the command
line (`optimizer._target_=torch.optim.RMSprop`). What a node leaves to the recipe is decided here, for both.
"""

from dataclasses import dataclass

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.settings import setting
from maquette.artifacts.targets import Node, has_key, node_value, target_of

MUON = "maquette.optimization.Muon"


@dataclass
class OptimizerConfig:
    """What all of ours have."""

    _target_: str = setting("", "class or function that makes the optimiser from groups of parameters")
    _partial_: bool = setting(True, "it gets the parameters later")
    lr: float | None = setting(None, "peak learning rate; by default the recipe's", minimum=0.0, first=True)
    weight_decay: float | None = setting(None, "decoupled decay of matrices; by default the recipe's", minimum=0.0)


@dataclass
class AdamConfig(OptimizerConfig):
    """What those have that are AdamW, or have it in them."""

    betas: list[float] = setting(lambda: [0.9, 0.99], "decay of the means of the gradient and of its square")
    eps: float = setting(1e-8, "added to the root of the squared gradient's mean", minimum=0.0)

    def validate(self) -> None:
        """Raises `ConfigError` for betas that are not two shares."""
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(
                f"optimizer.betas={self.betas} must be two numbers from 0 to below 1.", "Such as [0.9, 0.99]."
            )


@dataclass
class AdamWConfig(AdamConfig):
    """`torch.optim.AdamW`."""

    _target_: str = setting("torch.optim.AdamW", "class or function that makes the optimiser from groups of parameters")
    amsgrad: bool = setting(False, "divide by the largest squared gradient's mean so far")
    maximize: bool = setting(False, "climb instead of descend")
    foreach: bool | None = setting(None, "one kernel for each operation on many parameters")
    fused: bool | None = setting(None, "one kernel for the whole step; by default where there is one")
    capturable: bool = setting(False, "safe in a CUDA graph")
    differentiable: bool = setting(False, "autograd goes through the step")


@dataclass
class MuonConfig(AdamConfig):
    """`maquette.optimization.Muon`: hidden matrices by Muon, the rest by AdamW with its usual arguments."""

    _target_: str = setting(MUON, "class or function that makes the optimiser from groups of parameters")
    muon_lr: float = setting(0.02, "peak learning rate of Muon for hidden matrices", minimum=0.0)
    muon_momentum: float = setting(0.95, "momentum of Muon", minimum=0.0, maximum=1.0)
    fused: bool | None = setting(None, "one kernel for AdamW's whole step; by default where there is one")


@dataclass
class AdafactorConfig(OptimizerConfig):
    """`torch.optim.Adafactor` (Shazeer and Stern 2018): of a matrix's squared gradients it keeps the means of rows and
    of columns. A step is `lr` times the root mean square of the parameter's own numbers, so the rate is not AdamW's."""

    _target_: str = setting(
        "torch.optim.Adafactor", "class or function that makes the optimiser from groups of parameters"
    )
    lr: float | None = setting(
        0.01, "peak learning rate, as a share of a parameter's own size", minimum=0.0, first=True
    )
    weight_decay: float | None = setting(0.0, "decoupled decay of matrices", minimum=0.0)
    beta2_decay: float = setting(-0.8, "the mean of squares forgets by 1 - step to this power", maximum=0.0)
    eps: list[float | None] = setting(
        lambda: [None, 1e-3], "added to squares (null: the number format's), and the smallest size of a parameter"
    )
    d: float = setting(1.0, "updates with a larger root mean square are clipped to it", minimum=0.0)
    foreach: bool | None = setting(None, "one kernel for each operation on many parameters")
    maximize: bool = setting(False, "climb instead of descend")


@dataclass
class SchedulerConfig:
    """What all of ours have. `branches` is no argument of theirs: it makes several runs."""

    _target_: str = setting("", "class or function that makes the schedule")
    _partial_: bool = setting(True, "it gets the token budget (ours) or the optimiser (PyTorch's) later")
    warmup: float | None = setting(
        None, "share of the tokens over which the rate rises; by default the recipe's", minimum=0.0, maximum=1.0
    )
    branches: list[str] = setting(
        list, "wsd: further token budgets, whose cooldowns branch off from this run's trunk, each a run of its own"
    )


@dataclass
class LinearSchedulerConfig(SchedulerConfig):
    _target_: str = setting("maquette.optimization.LinearSchedule", "class or function that makes the schedule")
    final: float = setting(0.0, "learning rate at the end, as a share of the peak", minimum=0.0, maximum=1.0)


@dataclass
class CosineSchedulerConfig(SchedulerConfig):
    _target_: str = setting("maquette.optimization.CosineSchedule", "class or function that makes the schedule")
    final: float = setting(0.1, "learning rate at the end, as a share of the peak", minimum=0.0, maximum=1.0)


@dataclass
class WSDSchedulerConfig(SchedulerConfig):
    _target_: str = setting("maquette.optimization.WSDSchedule", "class or function that makes the schedule")
    decay: float = setting(0.2, "share of the tokens over which the rate falls at the end", minimum=0.0, maximum=1.0)
    decay_shape: str = setting("linear", "how it falls", choices=("linear", "sqrt", "cosine"))
    final: float = setting(0.0, "learning rate at the end, as a share of the peak", minimum=0.0, maximum=1.0)


@dataclass
class ConstantSchedulerConfig(SchedulerConfig):
    _target_: str = setting("maquette.optimization.ConstantSchedule", "class or function that makes the schedule")


OPTIMIZERS: dict[str, type[OptimizerConfig]] = {
    "adamw": AdamWConfig, "muon": MuonConfig, "adafactor": AdafactorConfig,
}  # fmt: skip
"""By the names of their files in `conf/optimizer`."""

SCHEDULERS: dict[str, type[SchedulerConfig]] = {
    "linear": LinearSchedulerConfig,
    "cosine": CosineSchedulerConfig,
    "wsd": WSDSchedulerConfig,
    "constant": ConstantSchedulerConfig,
}
"""By the names of their files in `conf/scheduler`."""

NOT_ARGUMENTS = ("branches",)
"""Keys of these nodes that what they build does not get."""

STEP_COUNTS = ("T_max", "total_steps", "total_iters", "num_training_steps", "max_steps")
"""Arguments of schedulers that are a number of optimiser steps. Left open (null), they are all of the run's."""

WARMUP_COUNTS = ("num_warmup_steps", "warmup_steps")
"""Arguments that are the steps of a warm-up. Left open, they are the recipe's share of the run's."""

_RECIPES = ("torch.optim.AdamW", "torch.optim.adamw.AdamW", MUON)


def short_name(node: Node) -> str:
    """The name in `conf/` of an optimiser or schedule of ours, else the dotted name."""
    names = {one._target_: name for name, one in (OPTIMIZERS | SCHEDULERS).items()}
    return names.get(target_of(node), target_of(node))


def planned_weight_decay(optimizer: Node) -> float | None:
    """The weight decay that the settings ask for; None: the recipe's.

    The recipe's number is for decoupled decay. An optimiser that is not AdamW may add it to the gradient instead, where
    it would outweigh the loss; so it gets it only where its node asks for it with `weight_decay: null`.
    """
    if has_key(optimizer, "weight_decay") or target_of(optimizer) in _RECIPES:
        decay: float | None = node_value(optimizer, "weight_decay")
        return decay
    return 0.0


def planned_warmup(scheduler: Node) -> float | None:
    """The warm-up's share of the tokens that the settings ask for; None: the recipe's. Schedulers that have none,
    such as most of PyTorch's, warm up over nothing."""
    if has_key(scheduler, "warmup") or target_of(scheduler).startswith("maquette."):
        warmup: float | None = node_value(scheduler, "warmup")
        return warmup
    open_count = any(has_key(scheduler, key) and node_value(scheduler, key) is None for key in WARMUP_COUNTS)
    return None if open_count else 0.0


def recipe_remark(optimizer: Node, learning_rate: float) -> str | None:
    """What a person should know who gave another optimiser and no learning rate for it."""
    if target_of(optimizer) in _RECIPES or node_value(optimizer, "lr") is not None:
        return None
    return (
        f"optimizer: {target_of(optimizer)} gets the recipe's learning rate for AdamW, {learning_rate:.3g}; "
        "optimizer.lr sets its own"
    )


def check_optimization(optimizer: Node, scheduler: Node) -> None:
    """Raises `ConfigError` for nodes that name nothing, or a scheduler that can't work here. Imports nothing."""
    for key, node in (("optimizer", optimizer), ("scheduler", scheduler)):
        if not target_of(node):
            raise ConfigError(f"{key} has no _target_.", f"Name what makes it: {key}._target_=package.module.Name.")
    if target_of(optimizer).rpartition(".")[2] == "LBFGS":
        raise ConfigError(
            "optimizer: LBFGS is not supported: it computes the loss several times a step, on all parameters as one.",
            "Use an optimiser of one gradient a step: optimizer=adamw, or torch.optim.RMSprop.",
        )
    if target_of(scheduler).rpartition(".")[2] == "ReduceLROnPlateau":
        raise plateau_error()


def plateau_error() -> ConfigError:
    """Why a scheduler that follows the validation loss is refused."""
    return ConfigError(
        "scheduler: ReduceLROnPlateau is not supported: it follows the validation loss, which a run computes only "
        "num_validations times.",
        "Use a schedule over the whole run: scheduler=linear, or torch.optim.lr_scheduler.CosineAnnealingLR.",
    )
