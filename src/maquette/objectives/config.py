"""Settings of the training objectives."""

from dataclasses import dataclass

from maquette.artifacts.settings import setting


@dataclass
class ObjectiveConfig:
    kind: str = setting("pretrain", "what is trained for", choices=("pretrain",))
    z_loss: float = setting(0.0, "weight of the squared log-normaliser of the logits", minimum=0.0)
    logits_limit: int | None = setting(
        None,
        "above so many logits (tokens of a forward pass x vocabulary) the loss is computed in chunks; "
        "by default what is fastest on the device",
        minimum=1,
    )
