"""The log of a run: events, metrics of steps and epochs, warnings of them."""
