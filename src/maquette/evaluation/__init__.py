"""How good a model is: baselines to beat, likelihoods, questions, win rates and ratings, each with its interval."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
