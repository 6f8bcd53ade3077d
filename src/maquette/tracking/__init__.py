"""The MLflow logger, what every run records (parameters, metrics, figures, lineage), and finding runs again."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
