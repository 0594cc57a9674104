"""What the checks compute, a file for each family."""
