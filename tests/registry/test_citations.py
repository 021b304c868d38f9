"""papers.bib is a BibTeX file whose entries are of the right types, one for each paper of the zoo."""

import re

import pytest

from neft_zoo import registry
from neft_zoo.registry.citations import BIBLIOGRAPHY, PACKAGE, bibliography, bibtex

ENTRY = re.compile(r"@(?P<kind>[a-z]+)\{(?P<key>[\w-]+),\n(?P<fields>(?:  \w+ = \{.*\},\n)+)\}")
NEEDED = {
    "inproceedings": {"title", "author", "booktitle", "year", "url"},
    "article": {"title", "author", "journal", "volume", "number", "pages", "year", "url"},
    "misc": {"title", "author", "year", "eprint", "archivePrefix", "url"},
    "software": {"title", "author", "year"},
}


def parse(entry):
    """Return kind, key and fields of an entry that is written as every entry must be."""
    found = ENTRY.fullmatch(entry)
    assert found, entry
    fields = dict(re.findall(r"^  (\w+) = \{(.*)\},$", found["fields"], flags=re.MULTILINE))
    assert all(value.count("{") == value.count("}") for value in fields.values()), entry
    return found["kind"], found["key"], fields


def test_every_paper_of_the_zoo_has_an_entry_and_every_entry_a_paper():
    papers = {registry.entry(name).paper for name in registry.builtin_names()} - {None}
    assert papers == {*bibliography()} - {PACKAGE}


@pytest.mark.parametrize("address", bibliography())
def test_the_type_of_an_entry_fits_its_fields(address):
    kind, _, fields = parse(bibliography()[address])
    assert set(fields) == NEEDED[kind]
    assert not any("arXiv" in fields.get(name, "") for name in ("booktitle", "journal"))
    if kind == "misc":
        assert fields["archivePrefix"] == "arXiv" and address == f"https://arxiv.org/abs/{fields['eprint']}"


def test_keys_are_unique_and_nothing_is_left_over():
    text = BIBLIOGRAPHY.read_text(encoding="utf-8")
    keys = [parse(entry)[1] for entry in bibliography().values()]
    assert len(keys) == len(set(keys)) == text.count("@")
    assert "\n\n".join(bibliography().values()) + "\n" == text


def test_a_preprint_is_cited_as_one_and_an_unknown_paper_by_its_address():
    assert bibtex("https://arxiv.org/abs/2312.01523").startswith("@misc{yadav2023symnoise,")
    assert bibtex("https://example.org/A-paper") == (
        "@misc{https_example_org_a_paper,\n  howpublished = {https://example.org/A-paper},\n}"
    )
    assert bibtex(None).startswith("@software{neft_zoo,")
