"""Studies of alignment: several runs from one recipe, their policies measured on the same prompts, and the figures."""
