"""Runs compiled graphs on arrays, on a CPU or on GPUs. Knows nothing of how graphs are built."""
