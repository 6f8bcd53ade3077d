"""Things on disk: atomic writes, digests, manifests, figures; settings, progress and errors that every room shares."""

from maquette.artifacts.errors import ConfigError, MaquetteError, StageError

__all__ = ["ConfigError", "MaquetteError", "StageError"]
