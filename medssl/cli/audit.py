"""Audit labelled images: unreadable files, duplicates, leaks across splits, label conflicts, shortcuts, confounds.

With a backbone also what its embeddings say: near duplicates, and same-group pairs among retrieved cases.

Exit code 0: no error among the findings; 1: findings of severity error; 2: the audit could not run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from medssl.cli import options

ERRORS_FOUND = 1


def main(given: Sequence[str] | None = None) -> int:
    """Parse the arguments, audit, print the table and write the findings as JSON."""
    parser = argparse.ArgumentParser(
        prog="medssl audit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[options.of_data(), options.of_run(), options.of_cache()],
    )
    parser.add_argument("--out", metavar="JSON", help="where to write the findings, for example findings.json")
    parser.add_argument("--backbone", metavar="NAME|DIR", help="also embed the images, and audit their neighbours")
    arguments = options.parsed(parser, given)

    from medssl.audit.audit import audit_data, audit_neighbors
    from medssl.data.load import load_data
    from medssl.errors import DataError

    out = Path(arguments.out) if arguments.out else None
    options.check_file(arguments.out)
    dataset = load_data(arguments.data, arguments.labels, arguments.data_revision)
    audit = audit_data(dataset, arguments.seed, progress=not arguments.quiet)
    if arguments.backbone:
        from medssl.backbones.backbone import shared_backbone
        from medssl.backbones.embeddings import embed

        broken = set(audit.undecodable)
        kept = dataset.select([row for row, name in enumerate(dataset["file_name"]) if name not in broken])
        backbone = shared_backbone(arguments.backbone)
        embedded = embed(kept, backbone, cache_dir=arguments.cache, progress=not arguments.quiet)
        audit = audit_neighbors(audit, embedded, arguments.seed)
    print(audit.table())
    if out:
        findings = {"data": arguments.data, "seed": arguments.seed, **audit.to_dict()}
        try:
            out.write_text(json.dumps(findings, indent=2, ensure_ascii=False) + "\n", "utf-8")
        except OSError as error:
            raise DataError(f"--out {arguments.out} cannot be written: {error.strerror or error}.") from error
    return ERRORS_FOUND if audit.errors else 0
