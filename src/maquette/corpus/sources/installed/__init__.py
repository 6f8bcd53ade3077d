"""The Python environment as a corpus: real text that is on every machine, in five different domains."""
