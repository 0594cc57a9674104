"""Command line: one verb per file; nothing heavy is imported before a verb runs."""
