"""Incidents: what is remembered of a bad batch, recorded, pictured, rebuilt and replayed."""
