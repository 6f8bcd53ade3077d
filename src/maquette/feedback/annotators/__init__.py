"""Those who give feedback, interchangeable: the gold reward, simulated people, a reward model, a language model, a file
of preferences."""
