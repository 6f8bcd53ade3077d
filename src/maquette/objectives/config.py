"""Settings of the training objectives."""

from dataclasses import dataclass

from maquette.artifacts.settings import setting


@dataclass
class ObjectiveConfig:
    kind: str = setting("pretrain", "what is trained for", choices=("pretrain",))
    z_loss: float = setting(0.0, "weight of the squared log-normaliser of the logits", minimum=0.0)
    logits_limit: int = setting(
        67_108_864, "above so many logits in one forward pass (rows x vocabulary) the loss is computed in chunks", minimum=1
    )
