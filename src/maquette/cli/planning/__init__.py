"""From the settings of `maquette train` to a job that training can run."""
