"""Many worker processes, and the whole protocol from folders of videos to matches. Knows no command line."""
