"""A bundle's cases on a Qdrant server: `medssl library` from a checkout."""

import _cli

from medssl.cli.library import main

if __name__ == "__main__":
    _cli.run(main)
