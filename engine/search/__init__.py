"""Descriptors to candidate pairs and copy segments. Knows nothing of files, videos and models."""
