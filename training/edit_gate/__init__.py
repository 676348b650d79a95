"""Training of the edit gate."""
