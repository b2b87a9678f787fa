"""What is a Hub id, and the words for what the Hub's clients raise."""

from __future__ import annotations

import httpx
import pytest
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from medssl.audit.findings import without_file_names
from medssl.bundle.publish import backbone_name, slug
from medssl.errors import BundleError
from medssl.hub.pull import hub_errors, in_words, is_hub_id, published_part


def test_a_hub_id_is_no_folder_that_is_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundles" / "brain").mkdir(parents=True)
    assert is_hub_id("me/brain") and is_hub_id("me/medssl-brain_2.0")
    for place in ("bundles/brain", "brain", "./me/brain", "/me/brain", "me/a/b", "../brain", "~/brain", tmp_path):
        assert not is_hub_id(place)


def refusal(status: int) -> HfHubHTTPError:
    return HfHubHTTPError("no", response=httpx.Response(status, request=httpx.Request("GET", "http://127.0.0.1")))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (refusal(401), "refuses the token .*401"),
        (refusal(403), "refuses the token .*403"),
        (refusal(429), "no more requests for now"),
        (refusal(503), "the error 503. Try again later"),
        (OfflineModeIsEnabled("off"), "cannot be reached"),
        (PermissionError("no right to write /cache"), "could not be read or written here: no right to write"),
        (ValueError("Invalid metadata in README.md.\n- license: wrong"), "does not take .*license: wrong"),
    ],
)
def test_what_the_clients_raise_is_said_in_words(error, words, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_write")
    with pytest.raises(BundleError, match=words) as said, hub_errors("me/brain"):
        raise error
    assert "me/brain" in str(said.value) and "\n" not in str(said.value)


def test_without_a_token_it_says_so(monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert "refuses you without a token" in in_words(refusal(401), "me/brain", token=False)


@pytest.mark.parametrize("config", [{}, {"published": 3}, {"published": {"cases": "x"}}, {"published": {}}])
def test_a_config_that_names_no_cases(config):
    assert published_part(config, "cases") == {}


def test_names_of_repos():
    assert backbone_name("facebook/dinov2-small") == "dinov2-small" == backbone_name("dinov2-small")
    assert backbone_name("/a/b/My Model!") == "My-Model" and backbone_name("me/medssl-backbone-x") == "x"
    assert slug("--a..b c--") == "a-b-c"


def test_no_file_name_of_the_publisher_leaves_the_house():
    metrics = {"audit": {"findings": [{"kind": "x", "examples": ["john.png"], "pairs": [1]}], "undecodable": ["a"]}}
    assert without_file_names(metrics) == {
        "audit": {"findings": [{"kind": "x", "examples": [], "pairs": []}], "undecodable": []}
    }
