"""Files are written whole or not at all, and what cannot be written is said in one sentence."""

import json
from pathlib import Path

import pytest

from neft_zoo import NoiseError
from neft_zoo.files import append_line, check_folder, check_output, make_folder, replacing, write_json, write_text


def test_an_error_on_the_way_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "report.json"
    write_json(path, {"loss": 1.0})
    with pytest.raises(KeyboardInterrupt), replacing(path) as partial:
        partial.write_text("half of it")
        raise KeyboardInterrupt
    for value in ("nan", "inf", "-inf"):
        with pytest.raises(NoiseError, match=f"{path} must hold finite numbers"):
            write_json(path, {"losses": [1.0, {"test": float(value)}]})
    assert json.loads(path.read_text()) == {"loss": 1.0}
    assert list(tmp_path.iterdir()) == [path]


def test_text_is_written_in_utf_8(tmp_path):
    write_text(tmp_path / "täxt", "ünïcode\n")
    assert (tmp_path / "täxt").read_bytes() == "ünïcode\n".encode()


@pytest.mark.parametrize("place", ["", "missing/report.json"])
def test_a_place_that_holds_no_file_is_refused(tmp_path, place):
    with pytest.raises(NoiseError, match=r"^json must be a file in an existing folder, got .*\.$"):
        check_output("json", tmp_path / place)
    with pytest.raises(NoiseError, match="must be a file that can be written"):
        write_text(tmp_path / place, "text")


def test_a_full_disk_is_one_sentence(tmp_path):
    # /dev/full takes no byte, as a full disk; the temporary file lies beside the target, hence a link to it.
    path = tmp_path / "report.md"
    with pytest.raises(NoiseError, match=r"must be a file that can be written: No space left on device\.$"):
        with replacing(path) as partial:
            partial.symlink_to("/dev/full")
            partial.write_text("text")
    assert not list(tmp_path.iterdir())


def test_check_output_leaves_nothing(tmp_path):
    check_output("json", tmp_path / "report.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_one_sentence_and_keeps_what_came_before():
    with pytest.raises(NoiseError, match="/dev/full must be a file that can be written: No space left on device"):
        append_line(Path("/dev/full"), "a result")


def test_a_folder_is_made_late_and_tried_early(tmp_path):
    folder = tmp_path / "a" / "b"
    check_folder("output", folder)
    assert list(tmp_path.iterdir()) == [], "trying leaves nothing"
    assert make_folder(folder) == folder and make_folder(folder).is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(NoiseError, match="output must be a folder, got .*file/under"):
        check_folder("output", tmp_path / "file" / "under")
    with pytest.raises(NoiseError, match="file must be a folder that can be made"):
        make_folder(tmp_path / "file")
