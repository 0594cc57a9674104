"""Settings of a run: presets, Ultralytics' settings, the guard's, and the resulting learning rate."""
