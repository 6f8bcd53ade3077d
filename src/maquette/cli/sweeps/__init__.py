"""Many runs from one line: what `-m` means (jobs.py), what it costs (forecast.py, table.py), how it runs (launching.py,
work.py), and what a person sees of it (view.py). `multirun.py` puts them together.
"""
