"""`medssl VERB ...`: the verb's file is imported only when it is asked for, so that `--help` waits for nothing."""

from __future__ import annotations

import argparse
from importlib import import_module

from medssl import __version__
from medssl.cli.run import run

VERBS = {
    "build": "a bundle from a folder or Hub data set of labelled images",
    "embed": "a shard of a data set's embeddings, for builds too large for one machine",
    "evaluate": "measure a bundle on labelled images",
    "audit": "what is wrong with labelled images",
    "pretrain": "pretrain or adapt an encoder on unlabelled images",
    "finetune": "adapt an encoder to a task with labels, and say whether it helped",
    "study": "compare backbones on the same tasks and splits",
    "publish": "a bundle or a backbone to the Hugging Face Hub",
    "add": "confirmed new cases to a bundle, or take them back",
    "library": "a bundle's cases on a Qdrant server: push, status, verify",
    "accept": "your own edits of a bundle's files, which its manifest refuses",
    "query": "send images to a running app",
    "serve": "start the page and its API",
    "demo": "start the page over the synthetic demo bundles, offline",
    "doctor": "what this machine and installation are: versions, precision, caches, whether Hub and Qdrant answer",
}


def main() -> None:
    """The console entry: hand the arguments after the verb to that verb's own parser."""
    verbs = "\n".join(f"  {name:10}{meaning}" for name, meaning in VERBS.items())
    parser = argparse.ArgumentParser(
        prog="medssl",
        description="Explainable classification of medical images on frozen backbones. For research only.",
        epilog=f"verbs:\n{verbs}\n\n`medssl VERB --help` says what each takes.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"medssl {__version__}")
    parser.add_argument("verb", choices=VERBS, metavar="VERB")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of the verb")
    options = parser.parse_args()
    verb = import_module(f"medssl.cli.{options.verb}")
    run(lambda: verb.main(options.arguments))
