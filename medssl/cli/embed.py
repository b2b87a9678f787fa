"""Embed one shard of a data set's pictures: on any machine, at any time, and where it was after a kill.

`medssl build --embedded DIR` takes the shards together and computes none of it again. Under `accelerate launch` or
torchrun each process takes the shard of its rank.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from medssl.cli import options
from medssl.text import printable

if TYPE_CHECKING:
    from medssl.backbones.embed_shard import EmbeddedShard

NAMED = 20  # unreadable files that are printed


def parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(
        prog="medssl embed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[options.of_data(), options.of_frame()],
    )
    parser.add_argument("--task", required=True, help="the task's name, as for `medssl build`")
    parser.add_argument("--backbone", required=True, help="a registry name, a Hub id or a folder")
    parser.add_argument("--out", required=True, metavar="DIR", help="where each shard gets a folder of its own")
    parser.add_argument(
        "--shard", metavar="I/N", help="which of how many, 1/N to N/N (default: that of the process's rank, else 1/1)"
    )
    parser.add_argument(
        "--stream",
        action="store_true",
        help="read a Hub data set's pictures as they are needed, instead of downloading it (parquet files only)",
    )
    parser.add_argument("--backbone-revision", metavar="REV", help="the backbone's revision on the Hub (default: main)")
    parser.add_argument(
        "--pooling",
        default="auto",
        help="what an embedding is made of, as for `medssl build`; auto (default): all that a build with auto tries",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars and no notes of libraries")
    return options.parsed(parser, given)


def shard_of_rank(environment: Mapping[str, str]) -> str:
    """The shard of a process that `accelerate launch` or torchrun started, of the only process else."""
    return f"{int(environment.get('RANK', 0)) + 1}/{environment.get('WORLD_SIZE', 1)}"


def use_own_device(environment: Mapping[str, str]) -> None:
    """Let each of several processes of one machine use a GPU of its own."""
    import torch

    if "LOCAL_RANK" in environment and torch.cuda.is_available():
        torch.cuda.set_device(int(environment["LOCAL_RANK"]) % torch.cuda.device_count())


def print_shard(shard: str, done: EmbeddedShard, seconds: float) -> None:
    """Print what came of it, and which files could not be read."""
    kept = f", {done.kept} of them before" if done.kept else ""
    print(f"Shard {shard}: {done.images} pictures{kept}, in {done.folder} after {seconds:.1f} s.")
    if done.unreadable:
        print(f"{len(done.unreadable)} of them cannot be read and are left out:")
    for name, reason in list(done.unreadable.items())[:NAMED]:
        print(f"  {printable(name)}: {printable(reason)}")
    if len(done.unreadable) > NAMED:
        print(f"  and {len(done.unreadable) - NAMED} more, which the build's audit names.")


def main(given: Sequence[str] | None = None) -> int:
    """Parse the arguments, embed, and print what came of it."""
    arguments = parse(given)

    from medssl.backbones.backbone import shared_backbone
    from medssl.backbones.embed_shard import embed_shard
    from medssl.backbones.embedder import Embedder
    from medssl.backbones.reading import union
    from medssl.backbones.shards import ShardNumber
    from medssl.bundle.build import readings_of
    from medssl.data.load import open_data
    from medssl.data.stream import stream_data

    started = time.perf_counter()
    shard = ShardNumber.parse(arguments.shard or shard_of_rank(os.environ))
    use_own_device(os.environ)
    backbone = shared_backbone(arguments.backbone, arguments.backbone_revision)
    readings = readings_of(backbone, arguments.pooling)
    preprocess = options.preprocess_of(arguments, backbone.preprocess)
    embedder = Embedder.of(backbone, preprocess, union(readings.values()).pooling)
    if arguments.stream:
        dataset = stream_data(arguments.data, arguments.labels, arguments.data_revision)
    else:
        dataset, _ = open_data(arguments.data, arguments.task, arguments.labels, arguments.data_revision)
    done = embed_shard(dataset, embedder, shard, arguments.out, not arguments.quiet)
    print_shard(str(shard), done, time.perf_counter() - started)
    return 0
