"""One dial: from a size to every hyperparameter, and the sweeps made of it."""
