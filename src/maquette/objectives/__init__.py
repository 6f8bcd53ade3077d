"""What models are trained for: each objective a loss and its metrics, wired to an optimiser and a schedule."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
