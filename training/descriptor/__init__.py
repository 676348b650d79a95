"""Training of descriptor models."""
