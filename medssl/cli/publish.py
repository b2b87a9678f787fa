"""Publish a bundle to the Hugging Face Hub (its cases, then its head), or a pretrained backbone; private by default."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from medssl.text import printable


def make_parser() -> argparse.ArgumentParser:
    """The parser of the verb."""
    parser = argparse.ArgumentParser(prog="medssl publish", description=__doc__)
    parser.add_argument("--bundle", help="the bundle folder")
    parser.add_argument("--backbone", help="a checkpoint folder to publish: alone, or as the one the bundle needs")
    parser.add_argument("--namespace", required=True, help="the user or organisation on the Hub")
    parser.add_argument("--name", help="the repo's name (default: medssl-TASK-BACKBONE, or medssl-backbone-FOLDER)")
    visibility = parser.add_mutually_exclusive_group()
    visibility.add_argument("--private", action="store_true", help="only the namespace can see it (the default)")
    visibility.add_argument("--public", action="store_true", help="everybody can see it")
    parser.add_argument("--no-images", action="store_true", help="leave the thumbnails out")
    parser.add_argument(
        "--license",
        "--licence",
        default="unknown",
        help="of the head, as the Hub names it or in words (default: unknown)",
    )
    parser.add_argument(
        "--backbone-license", default="unknown", help="of the backbone's weights, where its folder has no card"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be published, with the cards; no network"
    )
    return parser


def main(given: Sequence[str] | None = None) -> int:
    """Parse the arguments, publish, and print one line a repo."""
    parser = make_parser()
    arguments = parser.parse_args(given)
    if not arguments.bundle and not arguments.backbone:
        parser.error("give --bundle DIR, --backbone DIR or both.")

    from medssl.backbones.backbone import Backbone
    from medssl.bundle.bundle import Bundle
    from medssl.bundle.publish import PublishOptions, plan_text, publish_backbone, publish_bundle, upload_line

    backbone = Backbone.from_pretrained(arguments.backbone) if arguments.backbone else None
    if not arguments.bundle:
        if arguments.dry_run:
            kind = "PUBLIC" if arguments.public else "private"
            print(f"{kind} model repo of {arguments.namespace}: {arguments.backbone}")
            return 0
        license = arguments.backbone_license if arguments.backbone_license != "unknown" else arguments.license
        upload = publish_backbone(
            arguments.backbone, arguments.namespace, not arguments.public, arguments.name, license
        )
        print(upload_line("backbone", upload))
        return 0
    bundle = Bundle.load(arguments.bundle, backbone=backbone)
    options = PublishOptions(
        private=not arguments.public,
        images=not arguments.no_images,
        backbone=arguments.backbone,
        name=arguments.name,
        license=arguments.license,
        backbone_license=arguments.backbone_license,
    )
    if arguments.dry_run:
        lines = plan_text(bundle, arguments.namespace, options).split("\n")
    else:
        lines = publish_bundle(bundle, arguments.namespace, options).lines()
    print("\n".join(map(printable, lines)))
    return 0
