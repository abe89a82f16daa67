"""Losses for metric learning."""
