"""Inputs, calls and differences from hosts that several losses share, because those who call them do."""
