"""The battery as data, a file for each family or subject; needs no torch. A new check is a line here that names its operation."""
