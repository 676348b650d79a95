"""What shows a person, and checks with pixels, that a match is a copy. Knows videos and matches, not descriptors."""
