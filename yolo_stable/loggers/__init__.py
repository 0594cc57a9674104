"""Loggers: norms, incidents and the verdict, handed to the loggers that Ultralytics has opened for a run."""
