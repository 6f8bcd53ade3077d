"""Attacks on the program: hostile files, kills at any moment, a server under load, a long run under memory watch.

`make faults` runs the long half (`python -m tests.faults`) and prints what was tried, survived and lost; the tests in
this folder are the quick half. What is found is kept in `cases/`, and tried again by both.
"""
