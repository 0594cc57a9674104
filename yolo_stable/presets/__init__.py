"""Settings of a run: presets, Ultralytics' settings, the guard's, and the learning rate that follows from them."""
