"""Telling a card that medssl wrote from one that was edited by hand: its last line holds a hash of all the rest."""

from __future__ import annotations

import hashlib
import json
import re

import yaml
from huggingface_hub import RepoCard

# `datasets` keeps these up to date in a data set's card, so that they are no sign of a hand.
MANAGED = ("dataset_info", "configs")
MARK = re.compile(r"<!-- written by medssl, sha256:([0-9a-f]{64}); an edited card is never overwritten -->")


def parse_card(card: str) -> tuple[dict, str]:
    """A card's metadata and its body. Raises ValueError when the metadata is no YAML mapping."""
    try:
        parsed = RepoCard(card, ignore_metadata_errors=True)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    return parsed.data.to_dict(), parsed.text


def card_parts(card: str) -> tuple[dict, str]:
    """A card's metadata without what `datasets` manages, and its body without the mark.

    Raises ValueError when the metadata is no YAML mapping.
    """
    metadata, body = parse_card(card)
    return {key: value for key, value in metadata.items() if key not in MANAGED}, MARK.sub("", body).strip()


def managed_metadata(card: str) -> dict:
    """What `datasets` manages in a card's metadata; {} where it cannot be read."""
    try:
        metadata, _ = parse_card(card)
    except ValueError:
        return {}
    return {key: metadata[key] for key in MANAGED if key in metadata}


def digest(card: str) -> str:
    """A hash of what the card says, the same for the same YAML in another layout."""
    content = json.dumps(card_parts(card), sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()


def sign(card: str) -> str:
    """The card with the mark as its last line."""
    body = MARK.sub("", card).rstrip()
    return f"{body}\n\n<!-- written by medssl, sha256:{digest(body)}; an edited card is never overwritten -->\n"


def is_edited(card: str) -> bool:
    """Whether a hand was at work: there is text or metadata, and not with the mark that it had when it was written."""
    if not card.strip():
        return False
    try:
        metadata, body = card_parts(card)
        mark = MARK.search(card)
        return bool(metadata or body) and (mark is None or mark[1] != digest(card))
    except ValueError:
        return True


def is_same(card: str, other: str) -> bool:
    """Whether two cards say the same, whatever the layout of their metadata."""
    try:
        return digest(card) == digest(other) and bool(MARK.search(card)) == bool(MARK.search(other))
    except ValueError:
        return card == other
