"""What a run is asked to do: presets, Ultralytics' settings, the guard's, and the learning rate that follows from them."""
