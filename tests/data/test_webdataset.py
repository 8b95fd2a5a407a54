"""WebDataset tars as a source: what is taken, and what is said of tars that are damaged or hostile."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from data_sets import content, picture, problems, shards, tar

from diffclean.data.registry import format_of, open_source
from diffclean.errors import DiffcleanError, UsageError


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_samples_have_keys_labels_and_what_lies_beside_them(tmp_path: Path) -> None:
    source = open_source(shards(tmp_path))
    items = source.items()
    assert [item.key for item in items][:4] == ["x-000.tar/0000", "x-000.tar/0001", "x-000.tar/0002", "x-001.tar/0003"]
    assert [item.label for item in items] == ["0", "1", "2", "0", "1", "2"]
    assert source.read(items[4]) == picture(4)
    assert source.about(items[4]) == {"json": b'{"caption":  "number 4"}'}
    assert source.class_to_idx == {"0": 0, "1": 1, "2": 2}
    assert source.fields.names == ["json"]


@pytest.mark.parametrize("named", ["x-{000..001}.tar", "x-*.tar", "x-{000,001}.tar", ""])
def test_shards_are_named_by_braces_a_glob_or_their_folder(tmp_path: Path, named: str) -> None:
    shards(tmp_path)
    where = tmp_path / named
    assert format_of(str(where)) == "webdataset"
    assert len(open_source(where).items()) == 6


def test_a_folder_of_images_with_a_tar_beside_them_is_a_folder(tmp_path: Path) -> None:
    shards(tmp_path)
    (tmp_path / "cat").mkdir()
    assert format_of(str(tmp_path)) == "folder"


def test_a_missing_shard_of_a_list_is_named(tmp_path: Path) -> None:
    shards(tmp_path)
    with pytest.raises(DiffcleanError, match=r"x-002.tar does not exist \(and 2 more\)"):
        open_source(tmp_path / "x-{000..004}.tar")


def test_another_process_opens_it_by_its_description(tmp_path: Path) -> None:
    source = open_source(shards(tmp_path), byte_limit=10**6, label_from="json:caption")
    described = source.describe()
    assert described is not None
    assert [item.label for item in open_source(described).items()] == [f"number {number}" for number in range(6)]


def test_labels_come_from_another_member_when_that_is_asked_for(tmp_path: Path) -> None:
    assert content(shards(tmp_path), label_from="json:caption")[0][0] == "number 0"
    with pytest.raises(UsageError, match="no label is called"):
        open_source(tmp_path / "x-000.tar", label_from="table.csv").items()


def test_a_cut_tar_gives_what_lies_before_the_cut_and_says_so(tmp_path: Path) -> None:
    shards(tmp_path, count=1)
    path = tmp_path / "x-000.tar"
    path.write_bytes(path.read_bytes()[:3000])
    assert list(problems(path)) == ["x-000.tar/(the rest of this tar)"]
    assert "cut off at byte 3,000" in problems(path)["x-000.tar/(the rest of this tar)"]
    assert len(open_source(path).items()) == 2


def test_a_tar_without_its_end_mark_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tar(tmp_path / "x.tar", [("1.png", picture(1))])
    path.write_bytes(path.read_bytes()[: 512 + -(-len(picture(1)) // 512) * 512])
    assert len(open_source(path).items()) == 1
    assert "without an end mark" in caplog.text


def test_members_that_lead_out_are_listed_and_not_taken(tmp_path: Path) -> None:
    path = tar(
        tmp_path / "x.tar", [("../../evil.png", picture(1)), ("/etc/evil.png", picture(2)), ("ok.png", picture(3))]
    )
    found = problems(path)
    assert len(found) == 2
    assert all("leads out of the tar" in why for why in found.values())
    assert not (tmp_path.parent / "evil.png").exists()


def test_links_devices_and_pipes_in_a_tar_are_not_followed(tmp_path: Path) -> None:
    members = [
        (special("a.png", tarfile.SYMTYPE, "/etc/passwd"), b""),
        (special("b.png", tarfile.LNKTYPE, "c.png"), b""),
        (special("d.png", tarfile.CHRTYPE), b""),
        (special("e.png", tarfile.FIFOTYPE), b""),
        ("f.png", picture(1)),
    ]
    found = problems(tar(tmp_path / "x.tar", members))
    assert [why.split("png is a ")[1] for why in found.values()] == [
        f"{kind}, not a plain file" for kind in ("link", "link", "device", "pipe")
    ]


def test_a_sparse_file_is_no_bomb(tmp_path: Path) -> None:
    """Its header may promise a terabyte of zeros."""
    info = tarfile.TarInfo("a.png")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(10**12)}
    path = tar(tmp_path / "x.tar", [(info, b"1\n0\n0\n"), ("b.png", picture(1))])
    assert problems(path) == {"x.tar/a": "png is a sparse file, not a plain file"}


def test_a_header_that_promises_more_than_the_tar_holds_is_damage(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.png")
    info.size = 10**15
    (tmp_path / "x.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 2048)
    assert "cut off" in problems(tmp_path / "x.tar")["x.tar/(the rest of this tar)"]


def test_members_of_a_sample_that_lie_apart_are_listed(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", [("a.png", picture(1)), ("b.png", picture(2)), ("a.cls", b"0")])
    assert list(problems(path)) == ["x.tar/a"]
    assert "lie apart" in problems(path)["x.tar/a"]
    assert "--sort=name" in problems(path)["x.tar/a"]


def test_a_key_that_is_there_twice_is_listed(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", [("a.png", picture(1)), ("a.png", picture(2)), ("b.png", picture(3))])
    assert "there twice" in problems(path)["x.tar/a"]
    path = tar(tmp_path / "y.tar", [("a.png", picture(1)), ("a.jpg", picture(2))])
    assert "2 images (jpg, png); expected one" in problems(path)["y.tar/a"]


def test_a_compressed_tar_is_refused_with_what_to_type(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(DiffcleanError, match="gunzip"):
        open_source(tmp_path / "x.tar.gz")
    (tmp_path / "y.tar").write_bytes(b"\x1f\x8b" + bytes(1000))
    with pytest.raises(DiffcleanError, match="gunzip"):
        open_source(tmp_path / "y.tar").items()


def test_a_shard_that_changes_while_it_is_read_fails_its_images(tmp_path: Path) -> None:
    source = open_source(shards(tmp_path))
    item = source.items()[0]
    tar(tmp_path / "x-000.tar", [("0000.png", picture(9))])
    with pytest.raises(DiffcleanError, match="was changed after it was listed"):
        source.read(item)


def test_labels_that_could_lead_elsewhere_are_made_harmless(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", [("a.png", picture(1)), ("a.cls", b"../../evil\n")])
    (item,) = open_source(path).items()
    assert item.label == "_.._.._evil"
    assert open_source(path).name(item) == "_.._.._evil/x_a"


def test_long_names_and_folders_inside_are_kept(tmp_path: Path) -> None:
    long = "deep/" * 30 + "n" * 90
    path = tar(tmp_path / "x.tar", [(f"./{long}.png", picture(1)), (f"./{long}.cls", b"cat")])
    assert [(item.key, item.label) for item in open_source(path).items()] == [(f"x.tar/{long}", "cat")]


def test_a_tar_without_images_says_what_was_expected(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", [("a.txt", b"hello")])
    with pytest.raises(DiffcleanError, match=r"holds no images[\s\S]*WebDataset"):
        open_source(path).items()
