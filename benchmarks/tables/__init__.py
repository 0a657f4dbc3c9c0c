"""What `table.py` writes: the tables, each of the result files of its benchmarks."""
