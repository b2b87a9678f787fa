"""Embed one shard of a data set: `medssl embed` from a checkout."""

import _cli

from medssl.cli.embed import main

if __name__ == "__main__":
    _cli.run(main)
