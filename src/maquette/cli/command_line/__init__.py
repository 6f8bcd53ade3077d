"""What stands between `maquette STAGE key=value ...` and a stage's `run(config)`: dispatcher, composition, help."""
