"""What recordings promise, and whether they keep it.

Contracts are YAML in the Open Data Contract Standard, version 3; rules find the rows that break
them, Great Expectations judges, verdicts become rows of `mosaico.validation_results`.
"""
