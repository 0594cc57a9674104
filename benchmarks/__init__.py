"""Side-by-side measurements against stock Ultralytics, for anybody to repeat: ``python -m benchmarks.NAME``.

Figures are ratios of medians measured in one process, alternating; absolute times mean nothing beyond the machine.
"""
