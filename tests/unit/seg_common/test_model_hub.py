"""A model is named by its folder or by its id on the hub."""

import pytest

from seg_common.errors import UsageError
from seg_common.model_hub import find_model_folder

hub = pytest.importorskip("huggingface_hub")
errors = pytest.importorskip("huggingface_hub.errors")
TEXTS = {"not_a_model": "holds no model", "offline": "give its folder"}


def test_a_folder_is_taken_as_it_is(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert find_model_folder(str(tmp_path), (), **TEXTS) == tmp_path


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no model"):
        find_model_folder(str(tmp_path), (), **TEXTS)


def test_an_id_is_looked_for_on_the_hub(tmp_path, monkeypatch):
    asked = []

    def download(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert find_model_folder("Qwen/Qwen3-VL-4B-Instruct", ("*.json",), **TEXTS) == tmp_path
    assert asked == [("Qwen/Qwen3-VL-4B-Instruct", ["*.json"])]


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (OSError("no route to host"), "hub cannot be reached; .* and give its folder"),
        (errors.HFValidationError("a/b/c"), "neither a folder nor the id"),
        (errors.LocalEntryNotFoundError("offline"), "hf download one/model"),
    ],
)
def test_what_cannot_be_had_is_a_usage_error(failure, said, monkeypatch):
    def download(name, allow_patterns):
        raise failure

    monkeypatch.setattr(hub, "snapshot_download", download)
    with pytest.raises(UsageError, match=said):
        find_model_folder("one/model", (), **TEXTS)
