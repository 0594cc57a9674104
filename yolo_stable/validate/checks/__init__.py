"""The battery as data, a file for each family; needs no torch."""
