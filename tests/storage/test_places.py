"""Where the project and its data live."""

from pathlib import Path

from rfviz.storage import places
from rfviz.storage.places import repository


def test_repository_is_the_clone_whatever_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert repository() == Path(__file__).resolve().parents[2]


def test_repository_of_an_installed_package_is_the_working_folder(tmp_path, monkeypatch):
    installed = tmp_path / "site-packages" / "rfviz"
    monkeypatch.setattr(places, "__file__", str(installed / "storage" / "places.py"))
    monkeypatch.chdir(tmp_path)
    assert repository() == tmp_path.resolve()


def test_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RFVIZ_DATA", str(tmp_path))
    assert places.data_folder() == tmp_path
    monkeypatch.delenv("RFVIZ_DATA")
    monkeypatch.chdir(tmp_path)
    assert places.data_folder() == places.repository() / "data"  # not below the working folder
