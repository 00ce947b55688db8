"""Samples and where they come from: benchmark readers, prepared parquet rows, the procedural `mini`
benchmark.
"""
