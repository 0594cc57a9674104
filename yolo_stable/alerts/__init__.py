"""Alerts: one line to a web address when a run is in trouble, and when it ends."""
