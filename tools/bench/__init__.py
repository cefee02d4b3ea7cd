"""The figures: what Alpyne costs, measured on real daemons beside a yardstick of the same run.

docs/figures.md says how each row is measured and what it reaches.
"""
