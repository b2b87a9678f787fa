"""Publish a bundle to the Hugging Face Hub (its cases, then its head), or a pretrained backbone; private by default."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def main(given: Sequence[str] | None = None) -> int:
    """Parse the arguments, publish, and print one line a repo."""
    parser = argparse.ArgumentParser(prog="medssl publish", description=__doc__)
    parser.add_argument("--bundle", help="the bundle folder")
    parser.add_argument("--backbone", help="a checkpoint folder to publish: alone, or as the one the bundle needs")
    parser.add_argument("--namespace", required=True, help="the user or organisation on the Hub")
    parser.add_argument("--name", help="the repo's name (default: medssl-TASK-BACKBONE, or medssl-backbone-FOLDER)")
    visibility = parser.add_mutually_exclusive_group()
    visibility.add_argument("--private", action="store_true", help="only the namespace can see it (the default)")
    visibility.add_argument("--public", action="store_true", help="everybody can see it")
    parser.add_argument("--no-images", action="store_true", help="leave the thumbnails out")
    parser.add_argument("--licence", help="licence of the head, as the Hub names it (default: apache-2.0)")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be published, with the cards; no network"
    )
    arguments = parser.parse_args(given)
    if not arguments.bundle and not arguments.backbone:
        parser.error("give --bundle DIR, --backbone DIR or both.")

    from medssl.backbones.backbone import Backbone
    from medssl.bundle.bundle import Bundle
    from medssl.bundle.cards.cases import write_cases_card
    from medssl.bundle.cards.model import LICENCE, write_card
    from medssl.bundle.publish import plan_lines, plan_places, publish_backbone, publish_bundle, upload_line

    private = not arguments.public
    if not arguments.bundle:
        Backbone.from_pretrained(arguments.backbone)
        if arguments.dry_run:
            print(f"{'private' if private else 'PUBLIC'} model repo of {arguments.namespace}: {arguments.backbone}")
        else:
            print(
                upload_line(
                    "backbone", publish_backbone(arguments.backbone, arguments.namespace, private, arguments.name)
                )
            )
        return 0
    handed = Backbone.from_pretrained(arguments.backbone) if arguments.backbone else None
    bundle = Bundle.load(arguments.bundle, backbone=handed)
    images, licence = not arguments.no_images, arguments.licence or LICENCE
    if arguments.dry_run:
        places = plan_places(bundle, arguments.namespace, arguments.backbone, arguments.name)
        print("\n".join(plan_lines(bundle, places, private, images, bool(arguments.backbone))))
        print(f"\n--- card of {places.cases}\n\n{write_cases_card(bundle, places, images)}")
        print(f"--- card of {places.head}\n\n{write_card(bundle, places=places, licence=licence)}")
        return 0
    done = publish_bundle(
        bundle,
        arguments.namespace,
        private,
        images,
        backbone=arguments.backbone,
        name=arguments.name,
        licence=licence,
    )
    print("\n".join(done.lines()))
    return 0
