"""What Hydra finds of maquette: its sweepers. Hydra imports this at each start, so it is light."""
