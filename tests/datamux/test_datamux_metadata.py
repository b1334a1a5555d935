"""Collections, nodes and settings: read and checked, with useful errors."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import warnings

import pytest
from datamux_rig import gaze_json, write_collection, write_csv
from hypothesis import given
from hypothesis import strategies as st

import ataraxis.datamux as dm
from ataraxis.datamux.catalog import NamePattern
from ataraxis.datamux.streaminghub.dfds import read_json, read_node
from ataraxis.errors import ConfigError, ConfigWarning, SourceNotFound


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_collection_is_what_its_file_says(tmp_path):
    write_collection(tmp_path)
    (found,) = dm.API(tmp_path, tmp_path).list_collections()
    assert found.id == "eyes"
    assert found.pattern == "csv://{subject}_{session}_{task}"
    assert found.authors == [dm.Author("A", "B", "a@b.c")]
    stream = found.streams["gaze"]
    assert (stream.unit, stream.frequency, stream.rate_hz) == ("px", 100, 100.0)
    assert [f.numpy_dtype.str for f in stream.fields.values()] == ["<f4", "<f4"]
    assert stream.labels().dims == ("channel",)
    assert stream.labels().attrs["units"] == "px"


def test_streams_are_listed_in_the_order_of_their_groups(tmp_path):
    folder = write_collection(tmp_path)
    for name in ("B_1_1", "A_1_10", "A_1_2", "stray file"):
        write_csv(folder / f"{name}.csv", 2)
    streams = dm.API(tmp_path, tmp_path).list_collection_streams("eyes")
    shown = [(s.attrs["subject"], s.attrs["task"]) for s in streams]
    assert shown == [("A", "2"), ("A", "10"), ("B", "1")]
    first = streams[0]
    assert (first.id, first.attrs["mode"], first.node.id) == ("gaze", "replay", "eyes")


def test_a_pattern_goes_into_folders(tmp_path):
    folder = write_collection(tmp_path, pattern="csv://ses-{subject}/{session}/{task}")
    write_csv(folder / "ses-A" / "1" / "2.csv", 2)
    (stream,) = dm.API(tmp_path, tmp_path).list_collection_streams("eyes")
    attrs = {"subject": "A", "session": "1", "task": "2"}
    assert attrs.items() <= stream.attrs.items()
    assert len(dm.API(tmp_path, tmp_path).recording("eyes", "gaze", attrs)) == 2


def test_a_collection_in_yaml_is_the_same(tmp_path):
    folder = write_collection(tmp_path)
    write_csv(folder / "A_1_1.csv", 3)
    json_file = tmp_path / "eyes.collection.json"
    collection = read_json(dm.Collection, json_file)
    json_file.unlink()
    collection.to_yaml(tmp_path / "eyes.collection.yaml")
    api = dm.API(tmp_path, tmp_path)
    assert api.list_collections()[0].streams == collection.streams
    assert len(api.list_collection_streams("eyes")) == 1


WRONG = {
    "no JSON": ("{", "eyes.collection.json:1: not JSON"),
    "a list": ("[]", "expected an object"),
    "binary": (b"\xff\xfe\x00", "not UTF-8"),
    "unknown key": ({"patern": "x"}, "patern: unknown key (did you mean 'pattern'?)"),
    "rate is text": ({"streams.gaze.frequency": "fast"}, "streams.gaze.frequency: exp"),
    "rate below 0": ({"streams.gaze.frequency": -1}, "streams.gaze.frequency: exp"),
    "dtype": ({"streams.gaze.fields.x.dtype": "float"}, "gaze.fields.x.dtype: expec"),
    "no fields": ({"streams.gaze.fields": {}}, "streams.gaze.fields: expected at lea"),
    "pattern": ({"pattern": "{a}"}, "pattern: expected a pattern such as"),
    "format": ({"pattern": "cvs://{a}"}, "unknown format 'cvs'"),
    "escape": ({"pattern": "csv://../{a}"}, "must not leave its folder"),
    "folder": ({"name": "../eyes"}, "name: expected the name of a folder"),
    "authors": ({"authors": [{"name": 3}]}, "authors[0].name: expected text, found 3"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_a_damaged_description_spoils_only_itself(tmp_path, change, message):
    write_collection(tmp_path, "good")
    path = tmp_path / "eyes.collection.json"
    if isinstance(change, dict):
        data = gaze_json()
        for key, value in change.items():
            *parts, last = key.split(".")
            inner = data
            for part in parts:
                inner = inner[part]
            inner[last] = value
        path.write_text(json.dumps(data))
    else:
        path.write_bytes(change if isinstance(change, bytes) else change.encode())
    api = dm.API(tmp_path, tmp_path)
    with pytest.warns(ConfigWarning, match="'eyes' is left out"):
        assert [c.id for c in api.list_collections()] == ["good"]
    with pytest.raises(ConfigError) as caught:
        api.list_collection_streams("eyes")
    assert message in str(caught.value)
    assert "eyes.collection.json" in str(caught.value)
    assert api.list_collection_streams("good") == []


def test_references_between_files_are_followed_and_circles_found(tmp_path):
    gaze = gaze_json()["streams"]["gaze"]
    (tmp_path / "parts.json").write_text(json.dumps({"streams": {"gaze": gaze}}))
    path = tmp_path / "eyes.collection.json"
    data = gaze_json(streams={"gaze": {"@ref": "parts.json#/streams/gaze"}})
    path.write_text(json.dumps(data))
    assert read_json(dm.Collection, path).streams["gaze"].unit == "px"
    for ref, message in [
        ("https://example.org/x.json", "only files are followed"),
        ("gone.json", "missing file"),
        ("#/streams/gaze", "a circle"),
        ("parts.json#/nowhere", "'nowhere' is missing"),
    ]:
        data["streams"]["gaze"] = {"@ref": ref}
        path.write_text(json.dumps(data))
        with pytest.raises(ConfigError, match=message):
            read_json(dm.Collection, path)


def test_a_node_is_read_from_json_and_yaml(tmp_path):
    outputs = gaze_json()["streams"]
    device = {"model": "Core", "manufacturer": "Pupil Labs", "category": "Eye Tracker"}
    path = tmp_path / "eye.node.json"
    path.write_text(json.dumps({"device": device, "outputs": outputs}))
    node = read_node(path)
    assert (node.id, node.device.model) == ("eye", "Core")
    node.to_yaml(tmp_path / "eye.node.yaml")
    assert read_node(tmp_path / "eye.node.yaml") == node


def test_a_missing_name_raises_with_the_known_ones(tmp_path):
    write_collection(tmp_path)
    api = dm.API(tmp_path, tmp_path)
    with pytest.raises(SourceNotFound, match=r"no collection 'eye'.*mean 'eyes'"):
        api.list_collection_streams("eye")
    attrs = {"subject": "A", "session": "1", "task": "1"}
    with pytest.raises(SourceNotFound, match=r"no stream 'gazes'.*mean 'gaze'"):
        api.recording("eyes", "gazes", attrs)
    with pytest.raises(SourceNotFound, match=r"no recording.*A_1_1.csv"):
        api.recording("eyes", "gaze", attrs)
    with pytest.raises(SourceNotFound, match="missing task"):
        api.recording("eyes", "gaze", {"subject": "A", "session": "1"})
    with pytest.raises(SourceNotFound, match="not valid in a file's name"):
        api.recording("eyes", "gaze", {**attrs, "task": "../../secret"})
    with pytest.raises(LookupError, match="its folder"):
        dm.API(tmp_path / "x", tmp_path).list_collection_streams("eyes")
    with pytest.raises(FileNotFoundError, match="init"):
        dm.API(tmp_path, tmp_path / "x").list_collections()


def test_a_pattern_matches_what_it_makes():
    pattern = NamePattern("csv://{a}-{b}/x_{a}")
    assert pattern.match("1-2/x_1") == {"a": "1", "b": "2"}
    assert pattern.match("1-2/x_2") is None
    assert pattern.key({"a": 1, "b": "q"}) == "1-q/x_1"
    with pytest.raises(ConfigError, match="not the name of a group"):
        NamePattern("csv://{a b}")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner)
    ),
    max_leaves=4,
)
PLACES = [
    [], ["name"], ["pattern"], ["streams"], ["streams", "gaze"], ["authors"],
    ["groups"],
    ["streams", "gaze", "fields"], ["streams", "gaze", "fields", "x"],
    ["streams", "gaze", "fields", "x", "dtype"], ["streams", "gaze", "index", "t"],
    ["streams", "gaze", "frequency"], ["streams", "gaze", "attrs"], ["authors", 0],
    ["streams", "gaze", "node"], ["streams", "gaze", "fields", "x", "shape"],
]  # fmt: skip


@given(value=JSON, place=st.sampled_from(PLACES))
def test_any_json_anywhere_is_read_or_raises(tmp_path_factory, value, place):
    data = gaze_json()
    if place:
        inner = data
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
    else:
        data = value
    folder = tmp_path_factory.mktemp("any")
    (folder / "eyes.collection.json").write_text(json.dumps(data))
    message = "eyes.collection.json"
    with contextlib.suppress(ConfigError):
        dm.API(folder, folder)._catalog.collection("eyes")
        message = ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        listed = dm.API(folder, folder).list_collections()
    assert [c.id for c in listed] == ([] if message else ["eyes"])
    assert all(message in str(warning.message) for warning in caught)


# ---- settings


def test_settings_have_the_seeds_defaults(home):
    found = dm.Settings.load()
    assert found.data_dir == found.meta_dir == home / "streaminghub"


def test_init_as_the_seed_prints_it_makes_the_file_the_api_reads(home):
    command = [sys.executable, "-P", "-m", "ataraxis.datamux", "init"]
    args = ["--data_dir=$HOME/lab/data", "--meta_dir=$HOME/lab/meta"]
    subprocess.run([*command, *args], check=True, capture_output=True, timeout=60)
    api = dm.API()
    assert api.settings == dm.Settings(home / "lab" / "data", home / "lab" / "meta")
    assert api.list_collections() == []
    assert api.settings.data_dir.is_dir()
    (home / "here").mkdir()
    (home / ".streaminghubrc").rename(home / "here" / ".streaminghubrc")
    assert dm.Settings.load().data_dir == home / "streaminghub"
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert dm.API().list_collections() == []


def test_the_folders_own_settings_come_first(home, monkeypatch):
    dm.Settings(home / "a", home / "b").save()
    here = home / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    dm.Settings(home / "c", home / "d").save(here / ".streaminghubrc")
    assert dm.Settings.load().data_dir == home / "c"


@pytest.mark.parametrize("text", ["{", "[]", '{"data_dir": 3}'])
def test_damaged_settings_say_how_to_mend_them(home, text):
    (home / ".streaminghubrc").write_text(text)
    with pytest.raises(ConfigError, match="init' to rewrite it"):
        dm.API()
