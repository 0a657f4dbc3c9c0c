"""What `not_taken.py` measures: levers of search on a CPU that s2s does not have, each a prototype."""
