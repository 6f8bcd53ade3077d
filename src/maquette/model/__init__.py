"""The core and the recurrent baseline, heads, likelihoods, generation, counts, loading, Hugging Face import and export.

Names that need torch are imported on first use, so that `maquette.model.config` stays free of it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
