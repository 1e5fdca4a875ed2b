"""The compiler: one file per stage, and `pipeline.py`, which reads top to bottom as the whole of it."""
