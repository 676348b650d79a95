"""Architectures and their weights, nothing else: the only torch of the engine beside `build`."""
