"""Training: a job in, a run folder out. Devices, precision, compilation, checkpoints, and everything around a step."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
