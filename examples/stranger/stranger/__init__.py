"""A package of yours. Nothing in it is known to Maquette before a config or a command line names it."""
