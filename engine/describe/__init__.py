"""Videos to descriptors in one process: gate, frame scenes, ensemble. Knows nothing of stores and of searching."""
