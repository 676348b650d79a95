"""Where files lie that are not on this machine: object stores and the web. Knows nothing of what is in them."""
