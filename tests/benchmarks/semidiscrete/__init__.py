"""Parts of ``bench_semidiscrete.py``: problems, measured runs, the methods, the report."""
