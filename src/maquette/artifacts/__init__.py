"""Things on disk: atomic writes, digests, manifests, figures; settings, progress and errors of every package."""

from maquette.artifacts.errors import ConfigError, MaquetteError, StageError

__all__ = ["ConfigError", "MaquetteError", "StageError"]
