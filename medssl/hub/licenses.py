"""Licenses as the Hub's metadata names them."""

from __future__ import annotations

import re

from medssl.hub.card_signature import card_parts

UNKNOWN = "unknown"
# The Hub's own names, but for those of single models. Documentation:
# https://huggingface.co/docs/hub/repositories-licenses
HUB_LICENSES = frozenset(
    """afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc
    cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0
    cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 ecl-2.0 epl-1.0
    epl-2.0 eupl-1.1 eupl-1.2 gfdl gpl gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr mit mpl-2.0 ms-pl ncsa odbl
    odc-by openrail osl-3.0 pddl postgresql unlicense wtfpl zlib""".split()
)
ALIASES = {"cc0": "cc0-1.0", "apache": "apache-2.0"}


def license_fields(text: str) -> dict[str, str]:
    """A license in words as the Hub's metadata: `license`, and `license_name` for one the Hub has no name for."""
    words = text.strip().lower()
    if not words or words == UNKNOWN or words.startswith("not stated"):
        return {"license": UNKNOWN}
    name = words.replace(" ", "-")
    name = ALIASES.get(name, name)
    if name in HUB_LICENSES:
        return {"license": name}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", words).strip("-") or "not-named"}


def license_of(card: str) -> str:
    """The license that a card names in its metadata, unknown where it names none or cannot be read."""
    try:
        metadata, _ = card_parts(card)
    except ValueError:
        return UNKNOWN
    return str(metadata.get("license_name") or metadata.get("license") or UNKNOWN)
