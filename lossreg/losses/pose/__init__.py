"""Losses for pose."""
