"""Architectures and their weights, nothing else: the only torch of the engine. Knows nothing of graphs and files of them."""
