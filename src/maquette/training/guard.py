"""Looks at every step's loss: stops a run that has left the numbers, and reports a loss that leaps."""

import math
from collections.abc import Callable

from maquette.artifacts import StageError

_MEMORY = 0.99
"""The running mean forgets a step's loss to a third in a hundred steps."""

_CALM = 20
"""Steps before spikes are looked for: the first losses only fall."""


_OVERFLOWS = 20
"""So many overflows one after the other are no search for a scale any more: 2^20 times too large."""


class LossGuard:
    """`describe(step)` names the text of a step (from 1); `say` takes what there is to report. With `scaled` losses
    (`precision=16-mixed`) a gradient now and then overflows by design: the step is left out and the scale halved."""

    def __init__(
        self, spike_factor: float, describe: Callable[[int], str], say: Callable[[str], None], *, scaled: bool = False
    ) -> None:
        self.spike_factor = spike_factor
        self.scaled = scaled
        self._overflows = 0
        self.spikes = 0
        self._describe = describe
        self._say = say
        self._mean = 0.0
        self._steps = 0

    def check(self, step: int, loss: float, gradient_norm: float | None = None) -> None:
        """Raises `StageError` where the loss or the gradient's norm of a step is not a finite number."""
        if self.scaled and gradient_norm is not None:
            self._overflows = 0 if math.isfinite(gradient_norm) else self._overflows + 1
            if self._overflows < _OVERFLOWS:
                gradient_norm = None
        for name, value in (("loss", loss), ("gradient's norm", gradient_norm)):
            if value is not None and not math.isfinite(value):
                raise StageError(
                    f"Training has diverged: the {name} of step {step:,} is {value}. "
                    f"Its batch: {self._describe(step)}.",
                    "The last checkpoint is good. A lower optimizer.lr, a longer scheduler.warmup or "
                    "optimizer.clip usually helps; look at the documents too.",
                )
        # A factor of a mean says nothing where losses may be negative, as those of policies.
        if self._steps >= _CALM and self._mean > 0 and loss > self.spike_factor * self._mean:
            self.spikes += 1
            self._say(
                f"step {step:,}: the loss leapt to {loss:.3f} from {self._mean:.3f} on average. "
                f"Its batch: {self._describe(step)}"
            )
        memory = min(_MEMORY, self._steps / (self._steps + 1))
        self._mean = memory * self._mean + (1 - memory) * loss
        self._steps += 1

    def state_dict(self) -> dict[str, float]:
        return {"mean": self._mean, "steps": self._steps, "spikes": self.spikes}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self._mean, self._steps, self.spikes = state["mean"], int(state["steps"]), int(state["spikes"])
