"""Where searches are kept: who may go on with one, and whom it keeps waiting."""

from __future__ import annotations

import pytest

from features.database.engine import DatabaseError, open_database
from features.log.event_log import lock_writers
from features.settings import Settings
from tests.processes import free_ports
from training.studies import open_study, opened_storage


def test_a_study_made_on_other_data_is_refused(settings: Settings) -> None:
    with opened_storage(settings.log_url) as storage:
        open_study(storage, "s", {"events": 5, "epochs": 2}, {"dim": 64})
        open_study(storage, "s", {"events": 5, "epochs": 2}, {"dim": 64})
        with pytest.raises(ValueError, match="'s' was made with events=5, not 6.*--study"):
            open_study(storage, "s", {"events": 6, "epochs": 2}, {"dim": 64})


def test_a_database_that_does_not_answer_is_named() -> None:
    url = f"postgresql://braid@127.0.0.1:{free_ports()}/braid"
    with pytest.raises(DatabaseError, match="BRAID_DATABASE_URL: "), opened_storage(url):
        pass


def test_a_search_that_begins_does_not_wait_for_who_writes_events(postgres_url: str) -> None:
    engine = open_database(postgres_url)
    with engine.begin() as writer:
        lock_writers(writer)
        with opened_storage(f"{postgres_url}?options=-clock_timeout%3D5s") as storage:
            assert storage.get_all_studies() == []
    engine.dispose()
