"""Descriptors and tables on disk. Knows nothing of how they are made and of what they are for."""
