"""A catalogue as a service: uploads over HTTP, verdicts back. Knows nothing of how videos are described or compared."""
