"""Instructions that a model writes from seed tasks, as Self-Instruct (Wang et al. 2023) and Alpaca have them."""
