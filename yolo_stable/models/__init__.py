"""Drop-in models: Ultralytics' own classes, whose every training is guarded."""
