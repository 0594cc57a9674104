"""The guard inside Ultralytics' trainers."""
