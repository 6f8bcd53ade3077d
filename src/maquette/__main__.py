"""`python -m maquette STAGE`: the same as the command `maquette`."""

from maquette.cli import main

main()
