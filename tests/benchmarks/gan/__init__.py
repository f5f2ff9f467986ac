"""Parts of ``bench_gan.py``."""
