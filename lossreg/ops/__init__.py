"""The arithmetic that several losses share, a module for each topic."""
