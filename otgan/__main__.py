"""``python -m otgan`` is the command ``otgan``."""

import sys

from otgan.cli import main

sys.exit(main())
