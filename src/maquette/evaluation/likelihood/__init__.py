"""Log-likelihood of held-out documents, and the simple models that it is read against."""
