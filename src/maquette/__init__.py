"""Maquette: train a family of small language models, fit their laws, predict the big one, check the prediction.

Importing this package imports nothing heavy; each room loads what it needs when it is used.
"""

__version__ = "0.1.0"
