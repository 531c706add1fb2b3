"""Erasing a person: what goes now, what the law keeps and until when, and the proof."""
