"""Short trainings side by side: optimizers, presets, learning rates, seeds, and Ultralytics' own trainer as a baseline."""
