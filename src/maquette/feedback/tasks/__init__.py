"""Instruction tasks in plain English whose true reward a program can tell; endless, from a seed, without a download."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
