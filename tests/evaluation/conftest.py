"""The shipped model as a subject, shared by the tests of a file."""

import pytest
from small_subject import load, subject_of


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    return subject_of(load(), tmp_path_factory.mktemp("out"))
