"""Run log: events, metrics of steps and epochs, warnings."""
