"""`medssl library`: push, status and verify of a bundle against a stand-in for a server."""

import pytest

from medssl.bundle.build import build_bundle
from medssl.cli.library import main
from tests.conftest import UNCHOSEN
from tests.library.stand_in import running


@pytest.fixture(scope="module")
def bundle(tiny_data, tiny_backbone, tmp_path_factory):
    """A bundle whose cases are compared as they are: one collection."""
    out, cache = (tmp_path_factory.mktemp(name) for name in ("plain", "cache"))
    settings = {"progress": False, "cache_dir": cache, "case_space": "plain", **UNCHOSEN}
    build_bundle(tiny_data["shapes"], "shapes", tiny_backbone, out / "shapes", **settings)
    return str(out / "shapes")


def test_pushed_shown_and_verified(bundle, capsys):
    with running() as (state, url):
        given = ["--bundle", bundle, "--url", url]
        assert main(["status", *given]) == 1
        assert "holds nothing" in capsys.readouterr().out
        assert main(["push", *given, "--quiet", "--quantization", "int8", "--shards", "2"]) == 0
        (collection,) = state.collections
        assert main(["status", *given]) == 0
        shown = capsys.readouterr().out
        assert collection in shown and "shards 2" in shown
        assert main(["verify", *given, "--queries", "12"]) == 0
        assert "12 of 12 queries answered alike" in capsys.readouterr().out

        points = state.points(collection)
        points[0], points[1] = points[1], points[0]
        assert main(["verify", *given, "--queries", "60"]) == 1
        assert "DIFFER" in capsys.readouterr().out
        del points[5]
        from medssl.errors import LibraryError

        with pytest.raises(LibraryError, match="medssl library push"):
            main(["verify", *given])
        assert main(["push", *given, "--quiet", "--anew"]) == 0
        assert main(["verify", *given, "--queries", "12"]) == 0


def test_a_library_in_a_space_of_its_own_has_two_collections(tiny_bundle_folders, capsys):
    """Plain embeddings for familiarity, mapped ones for similar cases; both are pushed, told, and answer alike."""
    with running() as (state, url):
        given = ["--bundle", str(tiny_bundle_folders["shapes"]), "--url", url]
        assert main(["push", *given, "--quiet"]) == 0 and len(state.collections) == 2
        assert main(["status", *given]) == 0
        shown = capsys.readouterr().out
        assert all(collection in shown for collection in state.collections)
        assert main(["verify", *given, "--queries", "12"]) == 0
        assert "12 of 12 queries answered alike" in capsys.readouterr().out


def test_an_address_is_needed(bundle, monkeypatch, capsys):
    monkeypatch.delenv("MEDSSL_QDRANT_URL", raising=False)
    with pytest.raises(SystemExit):
        main(["status", "--bundle", bundle])
    assert "MEDSSL_QDRANT_URL" in capsys.readouterr().err
