"""Licenses in words, as the Hub names them, and back out of a card."""

import pytest

from medssl.hub.licenses import license_fields, license_of


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("cc by-nc-sa 4.0", {"license": "cc-by-nc-sa-4.0"}),
        ("CC0", {"license": "cc0-1.0"}),
        ("BSD-3-Clause", {"license": "bsd-3-clause"}),
        ("", {"license": "unknown"}),
        (" unknown ", {"license": "unknown"}),
        ("not stated by the source", {"license": "unknown"}),
        ("proprietary", {"license": "other", "license_name": "proprietary"}),
        ("\n---\nlicense: mit", {"license": "other", "license_name": "license-mit"}),
        ("許諾", {"license": "other", "license_name": "not-named"}),
    ],
)
def test_words_become_the_hubs_names(words, fields):
    assert license_fields(words) == fields


@pytest.mark.parametrize(
    ("card", "license"),
    [
        ("---\nlicense: mit\n---\n# A", "mit"),
        ("---\nlicense: other\nlicense_name: own-terms\n---\n# A", "own-terms"),
        ("# A", "unknown"),
        ("", "unknown"),
        ("---\nlicense: [\n---\n", "unknown"),
    ],
)
def test_a_card_names_its_license(card, license):
    assert license_of(card) == license
