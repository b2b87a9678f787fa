"""The Hub's two directions: pull and push."""

from medssl.hub.pull import BundleFiles, is_hub_id, pull, pull_bundle, pull_checkpoint
from medssl.hub.push import Publisher, Upload

__all__ = [
    "BundleFiles",
    "Publisher",
    "Upload",
    "is_hub_id",
    "pull",
    "pull_bundle",
    "pull_checkpoint",
]
