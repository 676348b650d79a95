"""The frame store: pictures of photographs and videos, read in any order by a training loop."""
