"""Edited footage made from pictures and videos: edits, clips, synthesized queries, pans, animations."""
