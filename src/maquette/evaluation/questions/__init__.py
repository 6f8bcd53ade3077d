"""Multiple choice: questions from files or made from the corpus, prompts, and every way of asking."""
