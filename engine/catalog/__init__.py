"""The references of a user as a catalogue that changes, and uploads compared with it. Knows nothing of a verdict."""
