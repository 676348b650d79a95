"""Weights to checked, compiled graphs in an engines directory."""
