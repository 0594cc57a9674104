"""Plumbing that knows nothing of the field: files, text, tables, signals, system facts."""
