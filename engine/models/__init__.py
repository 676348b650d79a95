"""The reference's models in PyTorch and their weights: needed to build artefacts and to train, never to run."""
