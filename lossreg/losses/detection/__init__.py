"""Losses for detection."""
