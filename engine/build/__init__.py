"""Weights to checked, compiled graphs in an engines directory. Knows nothing of videos."""
