"""Candidates and matches against ground truth: metrics, figures, plots. Knows nothing of how they were found."""
