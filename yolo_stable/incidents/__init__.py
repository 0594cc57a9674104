"""Incidents: records, draws, rebuilds and replays a bad batch."""
