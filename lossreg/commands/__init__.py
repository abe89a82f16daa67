"""What each command does, once its arguments are parsed: one module a command, each with a function ``run``."""
