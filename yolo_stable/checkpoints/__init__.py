"""Checkpoints: written, read, resumed, with the side file in full precision."""
