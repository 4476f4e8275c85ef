"""The catalogue on both databases."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from features.database.engine import open_database
from features.shop.catalogue import FRAME_COLUMNS, Catalogue, CatalogueItem


@pytest.fixture
def catalogue(database_url: str) -> Iterator[Catalogue]:
    engine = open_database(database_url)
    yield Catalogue(engine)
    engine.dispose()


FULL = CatalogueItem(
    item_id="cup 🍵",
    title="A cup",
    category_path=["Kitchen", "Cups"],
    brand="Ünal",
    price=2.5,
    stock=7,
    attributes={"colour": "red", "a": "b"},
    variant_group="cups",
    age_restricted=True,
    launch_time_ms=123,
)


def test_an_item_comes_back_as_it_went_in(catalogue: Catalogue) -> None:
    catalogue.upsert([FULL])
    found = catalogue.get("cup 🍵")
    assert found is not None
    assert found.revision == 1
    assert {name: getattr(found, name) for name in FRAME_COLUMNS} == {
        name: getattr(FULL, name) for name in FRAME_COLUMNS
    }
    assert catalogue.get("pot") is None


def test_an_empty_catalogue_is_ordinary(catalogue: Catalogue) -> None:
    assert catalogue.revision() == 0
    assert catalogue.frame().is_empty()
    assert dict(catalogue.frame().schema) == FRAME_COLUMNS
    assert catalogue.list("", 10) == []
    assert catalogue.changed_since(0, 10) == []
    assert catalogue.delete(["cup"]) == 0
    catalogue.upsert([])


def test_a_mask_changes_only_its_fields_of_items_that_exist(catalogue: Catalogue) -> None:
    catalogue.upsert([FULL])
    catalogue.upsert(
        [CatalogueItem(item_id="cup 🍵", price=3.0), CatalogueItem(item_id="pot", title="Pot", price=9.0)],
        fields=["price"],
    )
    cup, pot = catalogue.get("cup 🍵"), catalogue.get("pot")
    assert cup is not None and (cup.price, cup.title, cup.stock) == (3.0, "A cup", 7)
    assert pot is not None and pot.title == "Pot"
    with pytest.raises(ValueError, match="revision"):
        catalogue.upsert([FULL], fields=["revision"])


def test_deleted_items_are_gone_but_their_deletion_is_told(catalogue: Catalogue) -> None:
    catalogue.upsert([FULL, CatalogueItem(item_id="pot")])
    assert catalogue.delete(["pot", "pan"]) == 1
    assert catalogue.delete(["pot"]) == 0
    assert catalogue.get("pot") is None
    assert [item.item_id for item in catalogue.list("", 10)] == ["cup 🍵"]
    assert catalogue.frame()["item_id"].to_list() == ["cup 🍵"]
    changed = catalogue.changed_since(2, 10)
    assert [(item.item_id, item.deleted) for item in changed] == [("pot", True)]
    catalogue.upsert([CatalogueItem(item_id="pot", title="Back")])
    back = catalogue.get("pot")
    assert back is not None and back.title == "Back"


def test_a_part_of_an_item_does_not_bring_it_back(catalogue: Catalogue) -> None:
    catalogue.upsert([FULL, CatalogueItem(item_id="pot")])
    catalogue.delete(["cup 🍵"])
    revision = catalogue.revision()
    prices = [CatalogueItem(item_id=item_id, price=3.0) for item_id in ("cup 🍵", "pot", "pan")]
    assert catalogue.upsert(prices[:1], fields=["price"]) == 0
    assert catalogue.get("cup 🍵") is None and catalogue.changed_since(revision, 10) == []
    assert catalogue.upsert(prices, fields=["price"]) == 2
    assert sorted(catalogue.of(["cup 🍵", "pot", "pan"])) == ["pan", "pot"]
    assert catalogue.upsert([FULL]) == 1
    back = catalogue.get("cup 🍵")
    assert back is not None and (back.title, back.price, back.age_restricted) == ("A cup", 2.5, True)


def test_every_change_has_a_revision_of_its_own(catalogue: Catalogue) -> None:
    catalogue.upsert([CatalogueItem(item_id=str(number)) for number in range(5)])
    catalogue.upsert([CatalogueItem(item_id="2", title="again")])
    pages, revision = [], 0
    while page := catalogue.changed_since(revision, 2):
        pages.append([item.item_id for item in page])
        revision = page[-1].revision
    assert pages == [["0", "1"], ["3", "4"], ["2"]]
    assert revision == catalogue.revision() == 6


def test_writers_at_once_get_different_revisions(catalogue: Catalogue) -> None:
    def write(name: str) -> None:
        for number in range(10):
            catalogue.upsert([CatalogueItem(item_id=f"{name}{number}"), CatalogueItem(item_id="shared", title=name)])

    writers = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    revisions = [item.revision for item in catalogue.changed_since(0, 1_000)]
    assert len(revisions) == len(set(revisions)) == 31
    assert catalogue.revision() == 60


def test_pages_follow_the_id(catalogue: Catalogue) -> None:
    catalogue.upsert([CatalogueItem(item_id=f"{number:02}") for number in range(7)])
    seen: list[str] = []
    while page := catalogue.list(seen[-1] if seen else "", 3):
        seen += [item.item_id for item in page]
    assert seen == [f"{number:02}" for number in range(7)]


def test_the_frame_writes_attributes_as_sorted_pairs(catalogue: Catalogue) -> None:
    catalogue.upsert([FULL])
    row = catalogue.frame().row(0, named=True)
    assert row["attributes"] == ["a=b", "colour=red"]
    assert row["category_path"] == ["Kitchen", "Cups"]
    assert row["age_restricted"] is True
