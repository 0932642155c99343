"""Measurements of the product, reported as ratios to what its parts can do (docs/benchmarks.md)."""
