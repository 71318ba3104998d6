from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperstack.engine.logging import logfile
from hyperstack.engine.logging.jsonline import PART, escape, stamp
from hyperstack.engine.logging.logfile import LogSettings, LogWriter
from hyperstack.engine.logging.reading import LogReader, parse_time
from hyperstack.engine.logging.rotation import files_of, shift
from hyperstack.engine.logging.sending import Line, Sender, Terms
from hyperstack.engine.logging.transport import Connection
from hyperstack.errors import InternalError
from hyperstack.model import LogQuery, LogRecord, StreamKind

OUT, ERR = StreamKind.STDOUT, StreamKind.STDERR
NOW = 1_700_000_000_123_456_789


def settings_in(folder: Path, **more: object) -> LogSettings:
    return LogSettings(path=folder / "c-json.log", state=folder / "log.state", **more)  # type: ignore[arg-type]  # options by name


def records(folder: Path) -> list[dict[str, str]]:
    lines = (folder / "c-json.log").read_bytes().splitlines()
    return [json.loads(line) for line in lines]


async def read(folder: Path, query: LogQuery | None = None) -> list[LogRecord]:
    reader = LogReader(folder / "c-json.log", query or LogQuery(), None)
    return [record async for record in reader.records()]


def test_a_line_is_dockers_record_to_the_byte(tmp_path: Path) -> None:
    writer = LogWriter(settings_in(tmp_path), 1, fresh=True)
    writer.append(OUT, 0, b'a "quoted" <tag>\n', NOW)
    writer.close()
    assert (tmp_path / "c-json.log").read_bytes() == (
        b'{"log":"a \\"quoted\\" \\u003ctag\\u003e\\n","stream":"stdout",'
        b'"time":"2023-11-14T22:13:20.123456789Z"}\n'
    )


@given(st.binary(max_size=300))
def test_what_is_escaped_is_json_of_the_same_text(data: bytes) -> None:
    text = json.loads(b'"' + escape(data) + b'"')
    expected = data.decode("utf-8", "replace")
    assert text.replace("\ufffd", "") == expected.replace("\ufffd", "")


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (NOW, "2023-11-14T22:13:20.123456789Z"),
        (1_500_000_000, "1970-01-01T00:00:01.5Z"),
    ],
)
def test_times_are_gos(time_ns: int, text: str) -> None:
    assert stamp(time_ns) == text
    assert parse_time(text) == time_ns


@settings(max_examples=60, deadline=None)
@given(
    chunks=st.lists(
        st.tuples(st.sampled_from([OUT, ERR]), st.binary(min_size=1, max_size=40)), max_size=12
    ),
    deaths=st.sets(st.integers(min_value=0, max_value=12)),
)
def test_a_killed_daemon_loses_and_doubles_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    chunks: list[tuple[StreamKind, bytes]],
    deaths: set[int],
) -> None:
    folder = tmp_path_factory.mktemp("log")
    whole = {kind: b"".join(d for k, d in chunks if k is kind) for kind in (OUT, ERR)}
    sent = {OUT: 0, ERR: 0}
    writer = LogWriter(settings_in(folder), 1, fresh=True)
    for number, (kind, data) in enumerate(chunks):
        sent[kind] += len(data)
        start = writer.taken(kind)
        writer.append(kind, start, whole[kind][start : sent[kind]], NOW)
        if number in deaths:
            # kill -9: nothing is closed in order, and a half-written record may follow.
            with (folder / "c-json.log").open("ab") as torn:
                torn.write(b'{"log":"torn')
            writer.close()
            writer = LogWriter(settings_in(folder), 1, fresh=False)
    for kind in (OUT, ERR):
        writer.append(kind, writer.taken(kind), whole[kind][writer.taken(kind) :], NOW)
        writer.finish(kind)
    writer.close()
    for kind in (OUT, ERR):
        text = "".join(r["log"] for r in records(folder) if r["stream"] == kind)
        assert text.replace("\ufffd", "") == whole[kind].decode("utf-8", "replace").replace(
            "\ufffd", ""
        )


def test_a_long_line_is_cut_into_parts_of_16_kib(tmp_path: Path) -> None:
    writer = LogWriter(settings_in(tmp_path), 1, fresh=True)
    writer.append(OUT, 0, b"x" * (2 * PART + 5) + b"\n", NOW)
    writer.close()
    assert [len(r["log"]) for r in records(tmp_path)] == [PART, PART, 6]


def test_an_unfinished_line_is_stored_at_the_end(tmp_path: Path) -> None:
    writer = LogWriter(settings_in(tmp_path), 1, fresh=True)
    writer.append(OUT, 0, b"no newline", NOW)
    assert records(tmp_path) == []
    assert writer.taken(OUT) == 0
    writer.finish(OUT)
    assert [r["log"] for r in records(tmp_path)] == ["no newline"]
    writer.close()


@pytest.mark.parametrize("compress", [False, True])
async def test_rotation_keeps_the_newest_files(tmp_path: Path, compress: bool) -> None:
    writer = LogWriter(
        settings_in(tmp_path, max_size=1000, max_files=3, compress=compress), 1, fresh=True
    )
    text = b"".join(b"line %d\n" % number for number in range(200))
    writer.append(OUT, 0, text, NOW)
    writer.close()
    assert len(files_of(tmp_path / "c-json.log")) == 3
    kept = [record.data for record in await read(tmp_path)]
    assert kept[-1] == b"line 199\n"
    assert kept == [b"line %d\n" % n for n in range(200 - len(kept), 200)]
    assert all(path.stat().st_size < 1200 for path in files_of(tmp_path / "c-json.log"))


async def test_tail_since_until_and_streams_select(tmp_path: Path) -> None:
    writer = LogWriter(settings_in(tmp_path), 1, fresh=True)
    offsets = {OUT: 0, ERR: 0}
    for number in range(10):
        kind = ERR if number % 2 else OUT
        data = b"%d\n" % number
        writer.append(kind, offsets[kind], data, NOW + number)
        offsets[kind] += len(data)
    writer.close()

    async def selected(query: LogQuery) -> bytes:
        return b"".join(record.data for record in await read(tmp_path, query)).replace(b"\n", b"")

    assert await selected(LogQuery()) == b"0123456789"
    assert await selected(LogQuery(tail=3)) == b"789"
    assert await selected(LogQuery(tail=0)) == b""
    assert await selected(LogQuery(tail=3, stderr=False)) == b"8"
    assert await selected(LogQuery(tail=3, until_ns=NOW + 7)) == b"7"
    assert await selected(LogQuery(stdout=False)) == b"13579"
    assert await selected(LogQuery(since_ns=NOW + 7)) == b"789"
    assert await selected(LogQuery(until_ns=NOW + 2)) == b"012"


async def test_a_follower_sees_what_comes_and_the_end_over_rotations(tmp_path: Path) -> None:
    writer = LogWriter(settings_in(tmp_path, max_size=2000, max_files=5), 1, fresh=True)
    reader = LogReader(tmp_path / "c-json.log", LogQuery(follow=True), writer)
    seen: list[bytes] = []

    async def follow() -> None:
        async for record in reader.records():
            seen.append(record.data)

    task = asyncio.create_task(follow())
    offset = 0
    for number in range(60):
        data = b"line %d\n" % number
        writer.append(OUT, offset, data, NOW)
        offset += len(data)
        await asyncio.sleep(0.002)
    writer.close()
    await asyncio.wait_for(task, 5)
    assert seen == [b"line %d\n" % number for number in range(60)]


def test_a_driver_that_keeps_nothing_still_counts_offsets(tmp_path: Path) -> None:
    nothing = LogSettings(path=None, state=tmp_path / "log.state")
    writer = LogWriter(nothing, 1, fresh=True)
    writer.append(OUT, 0, b"a\nb\n", NOW)
    writer.close()
    again = LogWriter(nothing, 1, fresh=False)
    assert again.taken(OUT) == 4
    again.close()
    other_run = LogWriter(nothing, 2, fresh=True)
    assert other_run.taken(OUT) == 0
    other_run.close()


def test_what_is_not_utf8_becomes_one_replacement_for_each_byte_and_questions_stay() -> None:
    assert escape(b"who?\xff\xfe?\x01") == "who?\ufffd\ufffd?\\u0001".encode()
    assert escape("a\u2028b?".encode() + b"\x80") == b"a\\u2028b?" + "\ufffd".encode()


def test_bytes_of_many_kinds_are_escaped_as_each_alone_would_be() -> None:
    data = bytes(range(128)) * 3
    assert escape(data) == b"".join(escape(bytes([n])) for n in data)


@pytest.mark.parametrize("length", [PART // 2, PART - 2, PART - 1, PART, PART + 1, 3 * PART])
def test_many_lines_in_one_piece_are_cut_as_each_alone_would_be(
    tmp_path: Path, length: int
) -> None:
    text = b"short\n" * 5000 + b"x" * length + b"\n" + b"short again\n" * 3000
    made = []
    for folder, pieces in (("a", [text]), ("b", text.splitlines(keepends=True))):
        (tmp_path / folder).mkdir()
        writer = LogWriter(settings_in(tmp_path / folder), 1, fresh=True)
        offset = 0
        for piece in pieces:
            writer.append(OUT, offset, piece, NOW)
            offset += len(piece)
        writer.close()
        made.append(records(tmp_path / folder))
    assert made[0] == made[1]
    assert "".join(record["log"] for record in made[0]).encode() == text


@pytest.mark.parametrize("bad", ["c-json.log", "log.state"])
def test_a_log_that_cannot_be_opened_stops_a_new_run_but_not_one_that_goes_on(
    tmp_path: Path, bad: str
) -> None:
    (tmp_path / bad).mkdir()
    with pytest.raises(InternalError, match="can't be opened"):
        LogWriter(settings_in(tmp_path), 1, fresh=True)
    writer = LogWriter(settings_in(tmp_path), 1, fresh=False)
    writer.append(OUT, 0, b"a\n", NOW)
    assert writer.taken(OUT) == 2
    writer.close()


def test_a_daemon_killed_in_a_rotation_has_nothing_again_that_went_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = b"".join(b"line %d\n" % number for number in range(12))
    writer = LogWriter(settings_in(tmp_path, max_size=300, max_files=20), 1, fresh=True)
    real = shift

    def killed(path: Path, keep: int) -> None:
        real(path, keep)
        raise KeyboardInterrupt

    monkeypatch.setattr(logfile, "shift", killed)
    with pytest.raises(KeyboardInterrupt):
        writer.append(OUT, 0, whole, NOW)
    monkeypatch.setattr(logfile, "shift", real)
    again = LogWriter(settings_in(tmp_path, max_size=300, max_files=20), 1, fresh=False)
    again.append(OUT, again.taken(OUT), whole[again.taken(OUT) :], NOW)
    again.close()
    kept = b"".join(path.read_bytes() for path in files_of(tmp_path / "c-json.log"))
    assert [json.loads(each)["log"].encode() for each in kept.splitlines()] == whole.splitlines(
        keepends=True
    )


async def test_files_are_compressed_beside_and_those_that_a_killed_daemon_left_as_well(
    tmp_path: Path,
) -> None:
    path = tmp_path / "c-json.log"
    (tmp_path / "c-json.log.1").write_bytes(b'{"log":"old\\n","stream":"stdout","time":"x"}\n')
    writer = LogWriter(
        settings_in(tmp_path, max_size=500, max_files=4, compress=True), 1, fresh=True
    )
    text = b"".join(b"line %d\n" % number for number in range(10))
    writer.append(OUT, 0, text, NOW)
    async with asyncio.timeout(5):
        while [file.suffix for file in files_of(path)] != [".gz", ".gz", ".log"]:
            await asyncio.sleep(0.01)
    writer.close()
    assert not list(tmp_path.glob(".*"))
    assert [record.data async for record in LogReader(path, LogQuery(), None).records()][
        -10:
    ] == text.splitlines(keepends=True)


def test_of_two_forms_of_an_old_file_one_is_read(tmp_path: Path) -> None:
    for name in ("log", "log.1", "log.1.gz", "log.2.gz", "log.x", "log.10"):
        (tmp_path / name).touch()
    names = [path.name for path in files_of(tmp_path / "log")]
    assert names == ["log.10", "log.2.gz", "log.1", "log"]


async def test_a_follower_goes_on_after_somebody_emptied_the_log(tmp_path: Path) -> None:
    writer = LogWriter(settings_in(tmp_path), 1, fresh=True)
    reader = LogReader(tmp_path / "c-json.log", LogQuery(follow=True), writer).records()
    writer.append(OUT, 0, b"a rather long line\n", NOW)
    assert (await anext(reader)).data == b"a rather long line\n"
    os.truncate(tmp_path / "c-json.log", 0)
    writer.append(OUT, 19, b"b\n", NOW)
    assert (await asyncio.wait_for(anext(reader), 5)).data == b"b\n"
    writer.close()


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("tail", [0, 1, 5, 17, 60, 61, 1000])
async def test_the_tail_is_found_over_the_files(tmp_path: Path, compress: bool, tail: int) -> None:
    options = {"max_size": 1000, "max_files": 50, "compress": compress}
    writer = LogWriter(settings_in(tmp_path, **options), 1, fresh=True)
    whole = [b"line %d\n" % number for number in range(60)]
    writer.append(OUT, 0, b"".join(whole), NOW)
    while compress and any(p.suffix != ".gz" for p in files_of(tmp_path / "c-json.log")[:-1]):
        await asyncio.sleep(0.01)
    writer.close()
    found = [record.data for record in await read(tmp_path, LogQuery(tail=tail))]
    assert found == (whole[-tail:] if tail else [])


async def test_a_journals_tail_counts_what_came_before_until(tmp_path: Path) -> None:
    writer = LogWriter(settings_in(tmp_path), 1, fresh=True)
    for number in range(10):
        writer.append(OUT, 2 * number, b"%d\n" % number, NOW + number)
    writer.close()
    query = LogQuery(tail=2, until_ns=NOW + 5)
    path = tmp_path / "c-json.log"
    found = [r.data async for r in LogReader(path, query, None, timed=True).records()]
    assert found == [b"4\n", b"5\n"]
    assert await read(tmp_path, query) == []


async def test_who_does_not_follow_ends_where_the_log_was_at_first(tmp_path: Path) -> None:
    writer = LogWriter(settings_in(tmp_path), 1, fresh=True)
    text = b"x" * 100 + b"\n"
    writer.append(OUT, 0, text * 1000, NOW)
    got = 0
    async for _ in LogReader(tmp_path / "c-json.log", LogQuery(), writer).records():
        writer.append(OUT, writer.taken(OUT), text, NOW)
        got += 1
    writer.close()
    assert got == 1000


class Taking(Sender):
    """Keeps lines as a driver gets them."""

    def __init__(self) -> None:
        super().__init__(Terms())
        self.lines: list[Line] = []

    def message(self, line: Line) -> bytes:
        self.lines.append(line)
        return b""

    async def dial(self) -> Connection:
        raise AssertionError


async def test_drivers_are_told_which_part_of_a_long_line_they_get(tmp_path: Path) -> None:
    sender = Taking()
    writer = LogWriter(settings_in(tmp_path), 1, fresh=True, sender=sender)
    writer.append(OUT, 0, b"x" * PART, NOW)
    writer.append(ERR, 0, b"short\n", NOW + 1)
    writer.append(OUT, PART, b"x" * PART + b"y\nlast", NOW + 2)
    writer.finish(OUT)
    writer.close()
    ids = {line.partial.id for line in sender.lines if line.partial is not None}
    assert len(ids) == 2
    assert [
        (len(line.text), line.partial and (line.partial.ordinal, line.partial.last))
        for line in sender.lines
    ] == [(PART, (1, False)), (5, None), (PART, (2, False)), (1, (3, True)), (4, (1, False))]
    assert sender.lines[3].time_ns == NOW, "its time is that of its first part"
