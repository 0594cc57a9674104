"""Comparison: short trainings side by side, over optimizers, presets, learning rates and seeds, with stock as a baseline."""
