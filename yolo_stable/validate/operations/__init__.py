"""Operations: what the checks compute, a file for each family."""
