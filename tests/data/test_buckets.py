"""Data sets in a bucket of an S3 server on this machine: reading, the records of a run, locks, and what goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from bucket_server import Bucket
from data_sets import content, picture

from diffclean.data import bucket_access, lease
from diffclean.data.address import Address
from diffclean.data.bucket_path import BucketPath
from diffclean.data.bucket_records import LOG_FOLDER, BucketRecords
from diffclean.data.convert import convert
from diffclean.data.item import ReadError
from diffclean.data.journal import Journal
from diffclean.data.lease import Lease
from diffclean.data.manifest import Row
from diffclean.data.new_folder import LOCK
from diffclean.data.registry import format_of, open_sink, open_source
from diffclean.errors import DiffcleanError, Interrupted, MissingExtraError, UsageError


def keys(where: str, **options: Any) -> list[str]:
    return [item.key for item in open_source(where, **options).items()]


def test_one_address_has_one_spelling_and_credentials_in_it_are_refused_without_being_repeated() -> None:
    assert str(Address.parse(Path("s3://bucket/a/b/"))) == "s3://bucket/a/b"
    assert str(Address.parse("S3://bucket")) == "s3://bucket"
    for where in ("s3://AKIA:hushhush@bucket/x", "az://box/x?sig=hushhush", "s3://b/x?X-Amz-Signature=hushhush"):
        with pytest.raises(UsageError, match="holds credentials") as raised:
            open_source(where)
        assert "hush" not in str(raised.value)
        assert "AKIA" not in str(raised.value)
    for where in ("hdfs://server/x", Path("hdfs://server/x"), "https://store/x?sig=hushhush"):
        with pytest.raises(UsageError, match=r"(hdfs|https)://") as raised:
            open_source(where)
        assert "s3://, gs:// or az://" in raised.value.hint
        assert "mount it" in raised.value.hint
        assert "hush" not in str(raised.value)
    with pytest.raises(UsageError, match="abfss://") as raised:
        open_source(Path("abfss://box@account.dfs.core.windows.net/x"))
    assert "az://BUCKET/FOLDER" in raised.value.hint
    with pytest.raises(UsageError, match=r"'\.\.' part"):
        open_source("s3://bucket/a/../b")


def test_images_in_a_bucket_are_listed_and_read_as_in_a_folder(bucket: Bucket) -> None:
    image = picture(1)
    taken = ["in/cat/1.png", "in/cat/a b+c%.PNG", "in/cat/\u00e9.png", "in/cat-2/3.png", "in/dog/noname", "in/top.png"]
    others = ["in/notes.txt", "in/.hidden.png", "in/dog/.x/1.png", "in/@eaDir/1.png", "in/run.json", "other/1.png"]
    bucket.put(dict.fromkeys(taken, image) | dict.fromkeys(others, image) | {"in/dog/": b"", "in/dog/text": b"words"})
    source = open_source(bucket / "in")
    found = [(item.key, item.label) for item in source.items()]
    assert found == [
        ("cat-2/3.png", "cat-2"),
        ("cat/1.png", "cat"),
        ("cat/a b+c%25.PNG", "cat"),
        ("cat/\u00e9.png", "cat"),
        ("dog/noname", "dog"),
        ("top.png", ""),
    ]
    assert all(source.read(item) == image for item in source.items())
    assert source.class_to_idx == {"cat": 0, "cat-2": 1, "dog": 2}
    assert source.passed_over.kinds == {"txt": 1, "": 1}
    assert source.passed_over.machine_made == ["@eaDir"]
    assert source.describe() is not None
    assert keys(bucket / "in") == [item.key for item in open_source(source.describe()).items()]


def test_what_a_folder_on_disk_says_of_itself_a_folder_in_a_bucket_says_too(bucket: Bucket) -> None:
    bucket.put({"in/train/cat/1.png": picture(1), "in/val/cat/2.png": picture(2)})
    with pytest.raises(DiffcleanError, match="look like the parts of a data set"):
        _ = open_source(bucket / "in").class_to_idx
    assert open_source(bucket / "in", label_from="subfolder").class_to_idx == {"cat": 0}
    bucket.put({"t/a.png": picture(1), "t/b.png": picture(2), "t/metadata.csv": b"file_name,label,note\na.png,x,hi\n"})
    with pytest.raises(DiffcleanError, match=r"metadata\.csv beside its images"):
        _ = open_source(bucket / "t").class_to_idx
    source = open_source(bucket / "t", label_from="metadata.csv")
    assert [(item.key, item.label) for item in source.items()] == [("a.png", "x"), ("b.png", "")]
    assert source.about(source.items()[0]) == {"note": "hi"}


def test_an_object_that_changes_or_goes_after_it_was_listed_fails_alone(bucket: Bucket) -> None:
    bucket.put({f"in/{name}.png": picture(1) for name in "abc"})
    source = open_source(bucket / "in")
    changed, gone, same = source.items()
    bucket.put({"in/a.png": picture(2)})
    bucket.store.delete("in/b.png")
    with pytest.raises(ReadError, match="changed after it was listed"):
        source.read(changed)
    with pytest.raises(ReadError, match="does not exist"):
        source.read(gone)
    assert source.read(same) == picture(1)
    assert open_source(bucket / "in").items()[0].stamp != changed.stamp


def test_the_limit_of_bytes_is_known_without_reading(bucket: Bucket) -> None:
    bucket.put({"in/a.png": picture(1)})
    (item,) = open_source(bucket / "in", byte_limit=10).items()
    assert "the limit is 10" in (item.problem or "")
    assert bucket.bytes_read(".png") == []


def test_a_large_object_is_read_in_parts_and_a_part_that_breaks_off_is_continued(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffclean.data import store

    monkeypatch.setattr(store, "PART_BYTES", 1000)
    data = os.urandom(4500)
    bucket.put({"in/a.png": data})
    source = open_source(bucket / "in")
    (item,) = source.items()
    broken: set[str] = set()

    def cut(method: str, path: str) -> bool:
        first = method == "GET" and path.endswith("a.png") and len(broken) < 1
        broken.update({path} if first else ())
        return first

    bucket.cut = cut
    assert source.read(item) == data
    parts = {(number * 1000, min(number * 1000 + 999, 4499)) for number in range(5)}
    asked = {tuple(map(int, part.removeprefix("bytes=").split("-"))) for part in bucket.bytes_read("a.png")}
    assert asked > parts
    ((begin, end),) = asked - parts
    assert 0 < end - begin < 999


def test_throttled_and_failed_requests_are_repeated(bucket: Bucket) -> None:
    answers = {0: (503, "SlowDown"), 1: (500, "InternalError"), 4: (503, "SlowDown")}
    asked: list[str] = []

    def refuse(method: str, path: str) -> tuple[int, str] | None:
        asked.append(path)
        return answers.get(len(asked) - 1)

    bucket.refuse = refuse
    bucket.put({"in/a.png": picture(1)})
    source = open_source(bucket / "in")
    assert [source.read(item) for item in source.items()] == [picture(1)]


@pytest.mark.parametrize(
    ("status", "code", "said", "hint"),
    [
        (404, "NoSuchBucket", "There is no bucket s3://", "Check the name"),
        (403, "AccessDenied", "may not be listed", "permission"),
        (403, "InvalidAccessKeyId", "are not accepted", "AWS_PROFILE"),
        (403, "SignatureDoesNotMatch", "are not accepted", "AWS_SECRET_ACCESS_KEY"),
        (400, "ExpiredToken", "are not accepted", "AWS_PROFILE"),
        (403, "RequestTimeTooSkewed", "clock of this machine", "Set the clock"),
        (400, "AuthorizationHeaderMalformed", "another region", "AWS_REGION"),
        (301, "PermanentRedirect", "another region", "AWS_REGION"),
    ],
)
def test_each_refusal_is_said_in_words_and_names_no_credential(
    bucket: Bucket, status: int, code: str, said: str, hint: str
) -> None:
    bucket.refuse = lambda method, path: (status, code)
    with pytest.raises(DiffcleanError, match=said) as raised:
        keys(bucket / "in")
    assert hint in raised.value.hint
    assert "of-the-tests" not in str(raised.value)


def test_an_endpoint_where_nobody_listens_and_an_empty_place_are_said(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DiffcleanError, match="There is nothing in s3://"):
        open_source(bucket / "nowhere")
    bucket.put({"words/a.txt": b"x"})
    with pytest.raises(DiffcleanError, match=r"holds no images \(1 other"):
        keys(bucket / "words")
    monkeypatch.setattr(bucket_access, "_ATTEMPTS", 1)
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "a-token-of-the-tests")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    for scheme, variable in (("s3", "AWS_ENDPOINT_URL"), ("gs", "GOOGLE_BASE_URL"), ("az", "AZURE_STORAGE_ENDPOINT")):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
        with pytest.raises(DiffcleanError, match=f"store of {scheme}://bucket cannot be reached") as raised:
            open_source(f"{scheme}://bucket/in")
        assert variable in raised.value.hint


def test_missing_credentials_and_a_missing_profile_are_said_before_any_request(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(DiffcleanError, match="no credentials for s3://") as raised:
        open_source(bucket / "in")
    assert "AWS_PROFILE" in raised.value.hint
    monkeypatch.setenv("AWS_PROFILE", "mine")
    with pytest.raises(DiffcleanError, match="profile of AWS_PROFILE cannot be used"):
        open_source(bucket / "in")
    assert bucket.requests == []
    (tmp_path / "credentials").write_text("[mine]\naws_access_key_id = k\naws_secret_access_key = s\n")
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    (tmp_path / "config").write_text(f"[profile mine]\nregion = us-east-1\nendpoint_url = {bucket.endpoint}\n")
    bucket.put({"in/a.png": picture(1)})
    assert keys(bucket / "in") == ["a.png"]
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(DiffcleanError, match="no credentials for az://box"):
        open_source("az://box/in")


def test_a_missing_library_is_named_with_what_to_type(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_access, "_LIBRARY", "a_library_that_is_not_here")
    with pytest.raises(MissingExtraError) as raised:
        open_source(bucket / "in")
    assert raised.value.hint == "pip install 'diffclean[cloud]'"
    assert {access.usable for access in bucket_access.accesses()} == {False}


def test_a_sink_stores_reads_and_removes_whole_images(bucket: Bucket) -> None:
    sink = open_sink(bucket / "out", "folder")
    sink.write("cat/1.png", b"first")
    assert (sink.size("cat/1.png"), sink.size("cat/2.png")) == (5, None)
    sink.write("cat/1.png", b"second")
    sink.write("cat/%FF.png", b"a name that is no text")
    assert (sink.size("cat/1.png"), sink.read("cat/1.png")) == (6, b"second")
    sink.remove("cat/1.png")
    sink.remove("cat/1.png")
    assert (sink.size("cat/1.png"), sink.read("cat/%FF.png")) == (None, b"a name that is no text")
    with pytest.raises(ReadError, match="does not exist"):
        sink.read("cat/1.png")


def test_a_bucket_that_may_only_be_read_is_said_to_be_one(bucket: Bucket) -> None:
    bucket.refuse = lambda method, path: (403, "AccessDenied") if method == "PUT" else None
    with pytest.raises(DiffcleanError, match="may not be written with these credentials"):
        open_sink(bucket / "out", "folder").write("1.png", b"x")


def test_source_and_output_may_not_lie_in_one_another(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put({"in/cat/1.png": picture(1)})
    source = open_source(bucket / "in")
    for out, said in (("in", "is the source itself"), ("in/out", "lies inside the source")):
        with pytest.raises(DiffcleanError, match=said):
            open_sink(bucket / out, "folder").check_apart(source)
    open_sink(bucket / "in-2", "folder").check_apart(source)
    open_sink(tmp_path / "out", "folder").check_apart(source)


def records(bucket: Bucket) -> BucketRecords:
    return BucketRecords(BucketPath.of(bucket / "out"))


def rows(*numbers: int) -> list[Row]:
    return [Row(key=f"{number}.png", output=f"{number}_v00.png") for number in numbers]


def test_a_journal_survives_a_kill_and_is_one_object_once_it_is_closed(bucket: Bucket) -> None:
    journal = Journal.open(records(bucket))
    journal.append(rows(1, 2))
    journal.append(rows(3))
    pieces = list(bucket.objects("out"))
    assert len(pieces) == 2
    assert all(name.startswith(f"{LOG_FOLDER}/journal.jsonl/") for name in pieces)
    with Journal.open(records(bucket)) as after_a_kill:
        assert list(after_a_kill.rows()) == rows(1, 2, 3)
        after_a_kill.append(rows(4))
    assert list(bucket.objects("out")) == ["journal.jsonl"]
    assert bucket.objects("out")["journal.jsonl"].count(b"\n") == 4


def test_two_writers_of_one_journal_cannot_both_append(bucket: Bucket) -> None:
    first, second = Journal.open(records(bucket)), Journal.open(records(bucket))
    first.append(rows(1))
    with pytest.raises(DiffcleanError, match="Another process writes"):
        second.append(rows(2))


def test_a_log_with_many_pieces_is_joined_while_it_is_written(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffclean.data import bucket_records

    monkeypatch.setattr(bucket_records, "_MANY", 3)
    log = records(bucket).log("journal.jsonl")
    lines = [b"%d\n" % number for number in range(10)]
    for line in lines:
        log.append(line)
    assert len(bucket.objects("out")) < 10
    assert "journal.jsonl" in bucket.objects("out")
    assert list(records(bucket).log("journal.jsonl", write=False).lines()) == lines


def test_a_piece_of_a_log_that_is_missing_is_noticed(bucket: Bucket) -> None:
    log = records(bucket).log("journal.jsonl")
    for line in (b"1\n", b"2\n", b"3\n"):
        log.append(line)
    bucket.store.delete(f"out/{LOG_FOLDER}/journal.jsonl/{2:015d}")
    with pytest.raises(DiffcleanError, match="is missing at byte 2"):
        records(bucket).log("journal.jsonl")


def test_of_two_records_that_are_new_one_is_written(bucket: Bucket) -> None:
    assert records(bucket).write_new("run.json", b"1")
    assert not records(bucket).write_new("run.json", b"2")
    assert records(bucket).read("run.json") == b"1"
    assert records(bucket).read("nothing") is None
    with pytest.raises(ZeroDivisionError), records(bucket).stream("manifest.parquet") as file:
        file.write(b"half" * (1 // len(bucket.objects("nowhere"))))
    assert list(bucket.objects("out")) == ["run.json"]


def test_the_second_writer_is_told_who_the_first_is(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LIFE_S", 1.0)
    with records(bucket).hold(""):
        with (
            pytest.raises(DiffcleanError, match=f"is being written by process {os.getpid()} on "),
            records(bucket).hold(""),
        ):
            pass
        with pytest.raises(DiffcleanError, match="is being written by"), records(bucket).hold("1-of-2"):
            pass
    with (
        records(bucket).hold("1-of-2"),
        records(bucket).hold("2-of-2"),
        pytest.raises(DiffcleanError, match="is being written by"),
        records(bucket).hold(""),
    ):
        pass
    with records(bucket).hold(""):
        pass


def test_a_lock_of_a_process_that_was_killed_is_taken_after_a_while(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = (
        "import sys, time; from diffclean.data.bucket_records import BucketRecords as R\n"
        "from diffclean.data.bucket_path import BucketPath as P\n"
        "with R(P.of(sys.argv[1])).hold(''): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", hold, bucket / "out"], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        holder.kill()
    monkeypatch.setattr(lease, "LIFE_S", 0.5)
    with records(bucket).hold(""):
        content = json.loads(bucket.objects("out")[".diffclean.lock"])
        assert content["pid"] == os.getpid()
    assert bucket.objects("out")[".diffclean.lock"] == b"{}\n"


def refused(held: Lease) -> str:
    """Why the holder of a lease may not go on; empty if it may."""
    try:
        held.check()
    except DiffcleanError as error:
        return error.message
    return ""


def test_a_run_that_lost_its_lock_writes_no_more(bucket: Bucket) -> None:
    with Lease(bucket.store, "out/.diffclean.lock", "out", life_s=0.4) as held:
        bucket.store.put("out/.diffclean.lock", b'{"host": "other", "pid": 1}')
        deadline = time.monotonic() + 60
        while not refused(held) and time.monotonic() < deadline:
            pass
        assert "was taken by another run" in refused(held)
    assert b"other" in bucket.objects("out")[".diffclean.lock"]


def test_a_store_without_conditions_is_refused_as_an_output(bucket: Bucket) -> None:
    bucket.refuse = lambda method, path: (501, "NotImplemented") if method == "PUT" else None
    with pytest.raises(DiffcleanError, match="does not support conditional writes"), records(bucket).hold(""):
        pass


def test_the_format_of_what_lies_in_a_bucket_is_recognised(bucket: Bucket) -> None:
    bucket.put({"tars/x-0.tar": b"", "tars/x-1.tar": b"", "folder/cat/1.png": b"", "tables/data/x.parquet": b""})
    bucket.put({"tables/manifest.parquet": b"", "tables/run.json": b"", "one/x.npz": b""})
    found = {
        name: format_of(bucket / name) for name in ("tars", "folder", "tables", "one", "tars/x-{0..1}.tar", "x.npz")
    }
    assert found == {
        "tars": "webdataset",
        "folder": "folder",
        "tables": "parquet",
        "one": "npz",
        "tars/x-{0..1}.tar": "webdataset",
        "x.npz": "npz",
    }


@pytest.mark.parametrize("format", ["folder", "webdataset"])
def test_a_data_set_is_converted_into_a_bucket_and_back(bucket: Bucket, tmp_path: Path, format: str) -> None:
    for number in range(5):
        path = tmp_path / f"in/{'cat' if number % 2 else 'dog'}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    done = convert(str(tmp_path / "in"), Path(bucket / "out"), format)
    assert (done.images, done.out) == (5, bucket / "out")
    assert not [name for name in bucket.objects("out") if name.startswith(".")]
    assert content(bucket / "out") == content(tmp_path / "in")
    convert(bucket / "out", tmp_path / "back", "folder")
    assert content(tmp_path / "back") == content(tmp_path / "in")
    with pytest.raises(DiffcleanError, match="exists"):
        convert(str(tmp_path / "in"), Path(bucket / "out"))


def test_a_conversion_into_a_bucket_that_ends_early_leaves_nothing_or_starts_over(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        bucket.put({f"in/cat/{number}.png": picture(number)})
    stop = Event()
    stop.set()
    with pytest.raises(Interrupted):
        convert(bucket / "in", Path(bucket / "out"), stop=stop)
    assert bucket.objects("out") == {}
    bucket.put({f"out/{LOCK}": b'{"host": "h", "pid": 1}', "out/cat/old.png": b"half of what a killed process wrote"})
    monkeypatch.setattr(lease, "LIFE_S", 0.2)
    convert(bucket / "in", Path(bucket / "out"))
    assert bucket.objects("out") == bucket.objects("in")
    with Lease(bucket.store, f"other/{LOCK}", "other"), pytest.raises(DiffcleanError, match="is being written by"):
        convert(bucket / "in", Path(bucket / "other"))
