"""`maquette chat`: trained models to talk to in a browser, blindly against each other, or through the OpenAI API."""

from maquette.artifacts import ConfigError
from maquette.cli.command_line.model_config import ChatStage
from maquette.model.loading import find_models
from maquette.model.sampling import Sampling
from maquette.serving.served import open_models


def run(config: ChatStage) -> None:
    """Serves until it is stopped. Raises `ConfigError` where what serving needs is not installed, `StageError` where
    the port is taken."""
    try:
        from maquette.serving.server import serve
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed.", "pip install 'maquette-lm[serving]'") from None

    models = open_models(find_models(config.models, config.checkpoint, config.outputs))
    sampling = Sampling(config.temperature, config.top_k, config.top_p, config.min_p)
    serve(models, sampling, outputs=config.outputs, host=config.host, port=config.port, token=config.token)
