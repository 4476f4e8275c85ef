"""A renewed certificate whose files cannot be read at one handshake is taken in at a later one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from server.access.tls import Renewals, TlsFiles
from tests.certificates import Authority
from tests.descriptors import no_descriptors_left


def test_files_that_cannot_be_read_at_a_handshake_are_read_at_the_next_and_that_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    served = authority.sign("server")
    renewals = Renewals(TlsFiles(served.certificate, served.key, authority.file))
    assert renewals() is None
    authority.sign("server")
    with no_descriptors_left():
        assert [renewals(), renewals()] == [None, None]
    assert caplog.text.count("Too many open files") == 1
    assert renewals() is not None
    assert renewals() is None


def test_a_key_that_comes_late_with_the_times_of_another_file_is_taken_in(tmp_path: Path) -> None:
    served = Authority(tmp_path).sign("server")
    renewals = Renewals(TlsFiles(served.certificate, served.key, None))
    kept = served.key.read_bytes()
    Authority(tmp_path).sign("server")
    key, times = served.key.read_bytes(), (served.key.stat().st_atime_ns, served.key.stat().st_mtime_ns)
    for content, taken_in in ((kept, False), (key, True)):
        served.key.write_bytes(content)
        os.utime(served.key, ns=times)  # as rsync does
        assert (renewals() is not None) == taken_in
