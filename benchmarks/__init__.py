"""Measurements and the demonstration: they use the engine from outside, as a user would."""
