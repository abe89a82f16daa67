"""Arithmetic shared by several losses, one module per topic."""
