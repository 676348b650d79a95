"""Weights to checked, compiled graphs in an engines directory. Knows nothing of videos and of descriptors' use."""
