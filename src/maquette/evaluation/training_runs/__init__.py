"""The page of one training run, with its figures."""
