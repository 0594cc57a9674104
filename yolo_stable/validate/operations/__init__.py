"""The operations that checks compute. ``RECIPES`` and ``PROCEDURES`` of a family's file know them by the names in its checks."""
