"""The commands: one module each, whose ``run`` takes the parsed arguments."""
