"""Makes training and evaluation data, and trains the models. The engine never imports it."""
