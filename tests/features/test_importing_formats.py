"""The ready mappings read the public files exactly as they are published."""

from __future__ import annotations

import gzip
import json
from datetime import datetime, timezone
from pathlib import Path

import polars as pl
import pytest

from features.importing.mapping import load, ready_names
from features.importing.recognition import fitting
from features.schema import MAX_AGE
from features.settings import Settings
from tests.features.import_shop import PLAIN, Shop, rejected, write_excel

RETAIL = [
    ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"),
    (536365, "85123A", "WHITE HEART", 6, "2011-07-01 08:26:00", 2.55, 17850, "United Kingdom"),
    (536366, "85123A", "WHITE HEART", 1, "2011-07-02 08:26:00", 2.95, 17851, "France"),
    (536367, "85123A", "wrong?", 1, "2011-07-02 09:00:00", 2.55, 17850, "United Kingdom"),
    (536368, 22727, "ALARM CLOCK £", 2, "2011-07-02 10:00:00", 3.75, None, "United Kingdom"),
    ("C536369", "85123A", "WHITE HEART", -1, "2011-07-03 10:00:00", 2.55, 17850, "United Kingdom"),
    (536370, "POST", "POSTAGE", 1, "2011-07-03 11:00:00", 18.0, 17850, "United Kingdom"),
    (536371, 22728, "FREE", 1, "2011-07-03 12:00:00", 0.0, 17850, "United Kingdom"),
]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(Settings(home=tmp_path / "home"), tmp_path)


def retail_csv(shop: Shop, name: str, *, dates: str = "%Y-%m-%d %H:%M:%S", encoding: str = "utf-8") -> Path:
    lines = [",".join(RETAIL[0])]
    for row in RETAIL[1:]:
        moment = datetime.strptime(str(row[4]), "%Y-%m-%d %H:%M:%S").strftime(dates)
        customer = "" if row[6] is None else f"{row[6]}.0"
        lines.append(",".join(map(str, (*row[:4], moment, row[5], customer, row[7]))))
    return shop.write(name, "\n".join(lines), encoding)


def check_retail(shop: Shop, file: Path) -> None:
    assert fitting(file).name == "online_retail"
    report = shop.load(file)
    events = shop.events()
    assert report.sections[0].rejected == {
        "missing_user": 1,
        "cancelled_order": 1,
        "service_code": 1,
        "impossible_price": 1,
    }
    assert events.select("shopper", "item_id", "order_id", "quantity", "price", "event_type").rows() == [
        ("u:17850", "85123A", "536365", 6.0, 2.55, 4),
        ("u:17851", "85123A", "536366", 1.0, 2.95, 4),
        ("u:17850", "85123A", "536367", 1.0, 2.55, 4),
    ]
    first = datetime.fromtimestamp(events["event_time_ms"][0] / 1000, timezone.utc)
    assert first == datetime(2011, 7, 1, 7, 26, tzinfo=timezone.utc)  # British summer time
    assert events["arrival_time_ms"].to_list() == events["event_time_ms"].to_list()
    items = {row["item_id"]: row for row in shop.items().iter_rows(named=True)}
    assert set(items) == {"85123A", "22727"}
    assert (items["85123A"]["title"], items["85123A"]["price"]) == ("WHITE HEART", 2.55)
    assert items["22727"]["title"] == "ALARM CLOCK £"
    assert shop.users().select("user_id", "country").rows() == [("17850", "United Kingdom"), ("17851", "France")]


def test_online_retail_as_parquet(shop: Shop) -> None:
    rows = [(str(row[0]), str(row[1]), *row[2:4], datetime.fromisoformat(str(row[4])), *row[5:]) for row in RETAIL[1:]]
    file = shop.folder / "online_retail.parquet"
    pl.DataFrame(rows, schema=list(RETAIL[0]), orient="row").write_parquet(file)
    check_retail(shop, file)


def test_online_retail_as_excel(shop: Shop) -> None:
    epoch = datetime(1899, 12, 30)
    days = [(datetime.fromisoformat(str(row[4])) - epoch).total_seconds() / 86_400 for row in RETAIL[1:]]
    rows = [(*row[:4], day, *row[5:]) for row, day in zip(RETAIL[1:], days, strict=True)]
    check_retail(shop, write_excel(shop.folder / "Online Retail.xlsx", [RETAIL[0], *rows], date_columns=[4]))


def test_sheets_with_the_columns_of_the_first_are_read_and_others_are_told(shop: Shop) -> None:
    head = ["what", "who", "thing", "when"]
    first = [head, ["view", 17850, 22000, "2024-05-01T10:00:00Z"]]
    second = [
        [*head[::-1]],
        ["2025-05-01T10:00:00Z", "85123A", 17850, "view"],
        ["2025-05-02T10:00:00Z", 22000, 17851, "view"],
    ]
    file = write_excel(shop.folder / "shop.xlsx", first, second, [["remark"], ["a pivot"]], [head])
    report = shop.load(file, shop.mapping())
    assert shop.events().select("shopper", "item_id").rows() == [
        ("u:17850", "22000"),
        ("u:17850", "85123A"),
        ("u:17851", "22000"),
    ]
    (note,) = report.notes
    assert "shop.xlsx" in note and "not 'Sheet3';" in note


@pytest.mark.parametrize(
    ("dates", "encoding"),
    [("%Y-%m-%d %H:%M:%S", "utf-8"), ("%m/%d/%Y %H:%M", "latin-1"), ("%Y-%m-%d %H:%M:%S", "utf-8-sig")],
)
def test_online_retail_as_csv(shop: Shop, dates: str, encoding: str) -> None:
    check_retail(shop, retail_csv(shop, "data.csv", dates=dates, encoding=encoding))


def test_two_excel_files_of_one_name_are_each_read(shop: Shop) -> None:
    for folder in ("events", "items"):
        (shop.folder / folder).mkdir()
    rows = [["what", "who", "thing", "when"], ["view", "ann", "cup", "2024-05-01T10:00:00Z"]]
    events = write_excel(shop.folder / "events" / "shop.xlsx", rows)
    items = write_excel(shop.folder / "items" / "shop.xlsx", [["id", "title"], ["pot", "Pot"]])
    report = shop.load(events, shop.mapping(PLAIN | {"items": {"id": "id", "title": "title"}}), items=[items])
    assert [section.new for section in report.sections] == [1, 1]
    assert shop.events()["item_id"].to_list() == ["cup"]
    assert shop.items()["item_id"].to_list() == ["pot"]


@pytest.mark.parametrize("dates", ["%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M"])
def test_one_format_of_times_holds_for_a_whole_file(shop: Shop, dates: str) -> None:
    head, row = ",".join(RETAIL[0]), "53,85123A,WHITE HEART,1,{},2.5,17850,France"
    days = [datetime(2010, 12, day, 10, 0, tzinfo=timezone.utc) for day in (3, 12, 13)]
    lines = [row.format(day.strftime(dates)) for day in days]
    swallowed = row.format(datetime(2010, 12, 4).strftime(dates))
    stray = row.format(days[0].strftime(dates)).replace("WHITE", '"WHITE')
    file = shop.write("data.csv", "\n".join([head, *lines, stray, swallowed, row.format("13/13/2010 10:00")]))
    section = shop.load(file).sections[0]
    assert section.rejected == {"unreadable_line": 1, "unreadable_time": 1}
    times = [datetime.fromtimestamp(ms / 1000, timezone.utc) for ms in shop.events()["event_time_ms"]]
    assert times == [days[0], datetime(2010, 12, 4, tzinfo=timezone.utc), *days[1:]]


def test_retailrocket(shop: Shop) -> None:
    events = shop.write(
        "events.csv",
        "timestamp,visitorid,event,itemid,transactionid\n"
        "1433221332117,257597,view,355908,\n"
        "1433224214164,992329,addtocart,248676,\n"
        "1433222276276,599528,transaction,356475,4000\n",
    )
    shop.write(
        "item_properties_part1.csv",
        "timestamp,itemid,property,value\n"
        "1435460400000,355908,categoryid,1338\n"
        "1441508400000,248676,790,n277.200\n"
        "1439089200000,355908,888,1116713 960601 n277.200\n"
        "1431226800000,355908,790,n10.000\n"
        "1442200000000,355908,available,0\n",
    )
    shop.write(
        "item_properties_part2.csv",
        "timestamp,itemid,property,value\n1442113200000,355908,790,n12.500\n1432113200000,355908,available,1\n",
    )
    assert fitting(events).name == "retailrocket"
    report = shop.load(events)
    log = shop.events().sort("event_type")
    assert log.select("shopper", "item_id", "event_type", "event_time_ms", "order_id").rows() == [
        ("u:257597", "355908", 1, 1433221332117, None),
        ("u:992329", "248676", 2, 1433224214164, None),
        ("u:599528", "356475", 4, 1433222276276, "4000"),
    ]
    items = shop.items().select("item_id", "category_path", "price", "stock").rows()
    assert items == [("248676", [], 277.2, None), ("355908", ["1338"], 12.5, 0)]
    assert report.sections[1].files == ["item_properties_part1.csv", "item_properties_part2.csv"]


def test_taobao_user_behavior(shop: Shop) -> None:
    first = "1,2268318,2520377,pv,1511544070\n1,2333346,2520771,cart,1511561733\n"
    text = first + "2,7,8,buy,1511561734\n2,7,8,fav,1511561735\n"
    file = shop.folder / "UserBehavior.csv.gz"
    file.write_bytes(gzip.compress(text.encode()))
    assert fitting(file).name == "taobao"
    shop.load(file)
    assert shop.events().select("shopper", "item_id", "event_type", "event_time_ms").rows() == [
        ("u:1", "2268318", 1, 1511544070000),
        ("u:1", "2333346", 2, 1511561733000),
        ("u:2", "7", 4, 1511561734000),
        ("u:2", "7", 3, 1511561735000),
    ]
    assert shop.items().select("item_id", "category_path").rows()[0] == ("2268318", ["2520377"])


def test_movielens_1m(shop: Shop) -> None:
    ratings = shop.write("ratings.dat", "1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978298413\n")
    shop.write(
        "movies.dat",
        "661::James and the Giant Peach (1996)::Animation|Children's|Musical\n1193::Les Misérables (1995)::Drama\n",
        "latin-1",
    )
    shop.write("users.dat", "1::F::1::10::48067\n2::M::56::16::70072\n")
    assert fitting(ratings).name == "movielens_1m"
    shop.load(ratings)
    assert shop.events()["item_id"].to_list() == ["1193", "1193", "661"]
    assert shop.items().select("title", "category_path").rows() == [
        ("Les Misérables (1995)", ["Drama"]),
        ("James and the Giant Peach (1996)", ["Animation", "Children's", "Musical"]),
    ]
    assert shop.users().select("user_id", "age", "gender").rows() == [("1", 1, "female"), ("2", 56, "male")]


def test_an_age_is_taken_up_to_the_contract_s_limit(shop: Shop) -> None:
    events = shop.write("events.csv", "what,who,thing,when\nview,1,a,2024-05-01T10:00:00Z\n")
    people = shop.write("people.csv", "id,years\n1,150\n2,151\n")
    mapping = shop.mapping(PLAIN | {"users": {"id": "id", "age": "years"}})
    section = shop.load(events, mapping, users=people).sections[-1]
    assert shop.users().select("user_id", "age").rows() == [("1", MAX_AGE), ("2", None)]
    assert section.adjusted == {f"age unreadable, negative or beyond {MAX_AGE}: left out": 1}


def test_movielens_as_csv(shop: Shop) -> None:
    ratings = shop.write("ratings.csv", "userId,movieId,rating,timestamp\n1,2,3.5,1112486027\n1,29,3.5,1112484676\n")
    shop.write("movies.csv", 'movieId,title,genres\n29,"City of Lost Children, The (1995)",Adventure|Drama\n')
    assert fitting(ratings).name == "movielens"
    shop.load(ratings)
    assert shop.events()["event_time_ms"].to_list() == [1112484676000, 1112486027000]
    assert shop.items()["title"].to_list() == ["City of Lost Children, The (1995)"]


def test_amazon_reviews_2023(shop: Shop) -> None:
    review = {
        "rating": 5.0,
        "title": "Such a lovely scent",
        "text": "I love it,\nreally",
        "images": [],
        "asin": "B00YQ6X8EO",
        "parent_asin": "B00YQ6X8EP",
        "user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ",
        "timestamp": 1588687728923,
        "helpful_vote": 0,
        "verified_purchase": True,
    }
    file = shop.folder / "All_Beauty.jsonl.gz"
    file.write_bytes(gzip.compress((json.dumps(review) + "\nno json\n").encode()))
    meta = {
        "main_category": "All Beauty",
        "title": "Spray, 8 Oz",
        "price": 12.99,
        "store": "Howard",
        "categories": ["Beauty", "Hair"],
        "parent_asin": "B00YQ6X8EP",
    }
    items = shop.write("meta_All_Beauty.jsonl", json.dumps(meta) + "\n")
    assert fitting(file).name == "amazon_reviews"
    report = shop.load(file, items=[items])
    assert shop.events().select("shopper", "item_id", "event_time_ms", "event_type").rows() == [
        ("u:AGKHLEW2SOWHNMFQIJGBECAF7INQ", "B00YQ6X8EP", 1588687728923, 4)
    ]
    assert shop.items().select("title", "category_path", "brand", "price").rows() == [
        ("Spray, 8 Oz", ["Beauty", "Hair"], "Howard", 12.99)
    ]
    assert report.sections[0].rejected == {"unreadable_line": 1}
    assert rejected(report.sections[0])["line_text"].to_list() == ["no json"]


def test_amazon_reviews_2018(shop: Shop) -> None:
    review = {"overall": 5.0, "reviewerID": "A1", "asin": "B017O9P72A", "unixReviewTime": 1449792000}
    file = shop.write("Appliances_5.json", json.dumps(review) + "\n")
    meta = {"asin": "B017O9P72A", "title": "Bulb", "brand": "SK", "price": "$1,012.50", "category": ["Appliances"]}
    items = shop.write("meta_Appliances.json", json.dumps(meta) + "\n")
    assert fitting(file).name == "amazon_reviews"
    shop.load(file, items=[items])
    assert shop.events()["event_time_ms"].to_list() == [1449792000000]
    assert shop.items().select("price", "brand").rows() == [(1012.5, "SK")]


def test_a_key_of_json_lines_that_comes_late_is_a_column_too(shop: Shop) -> None:
    views = [{"type": "view", "user": "ann", "item": f"i{n}", "time": 1_700_000_000 + n * 60} for n in range(300)]
    bought = [view | {"type": "purchase", "order": f"o{n}", "price": 2.5} for n, view in enumerate(views[:50])]
    file = shop.write("shop.jsonl", "\n".join(map(json.dumps, [*views, *bought])))
    mapping = shop.mapping(
        {
            "events": {
                "type": {"column": "type"},
                "user": "user",
                "item": "item",
                "time": {"column": "time"},
                "order": "order?",
                "price": "price?",
            }
        }
    )
    assert shop.load(file, mapping).sections[0].new == 350
    purchases = shop.events().filter(pl.col("event_type") == 4)
    assert purchases.select("order_id", "price").rows() == [(f"o{n}", 2.5) for n in range(50)]


def test_the_simulated_shop(shop: Shop) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    columns = {"order_id": pl.String, "query": pl.String, "attribution_token": pl.String}
    events = pl.DataFrame(
        {
            "event_id": ["v1-0", "v1-1", "v2-0"],
            "event_type": ["view", "search", "purchase"],
            "user_id": ["ann", None, "ann"],
            "session_id": ["s1", "s1", None],
            "item_id": ["i1", None, "i1"],
            "event_time": [moment] * 3,
            "quantity": [None, None, 2.0],
            "price": [None, None, 9.5],
            "order_id": [None, None, "o1"],
            "query": [None, "tea pot", None],
            "attribution_token": [None, None, "t"],
        },
        schema_overrides=columns,
    )
    events.write_parquet(shop.folder / "events.parquet")
    pl.DataFrame(
        {
            "item_id": ["i1"],
            "title": ["Teapot"],
            "category_path": ["Kitchen > Tea"],
            "brand": ["Ünal"],
            "price": [9.5],
            "stock": [3],
            "launch_time": [moment],
            "variant_group": ["pots"],
            "age_restricted": [True],
            "attr_colour": ["red"],
        }
    ).write_parquet(shop.folder / "items.parquet")
    pl.DataFrame({"user_id": ["ann"], "age": [31], "gender": ["female"], "country": ["GB"]}).write_parquet(
        shop.folder / "users.parquet"
    )
    file = shop.folder / "events.parquet"
    assert fitting(file).name == "simulated"
    report = shop.load(file)
    assert [section.new for section in report.sections] == [3, 1, 1]
    assert shop.events().sort("event_id").select("event_id", "shopper", "query", "attribution_token").rows() == [
        ("v1-0", "u:ann", None, None),
        ("v1-1", "u:ann", "tea pot", None),
        ("v2-0", "u:ann", None, "t"),
    ]
    item = shop.items().row(0, named=True)
    assert item["category_path"] == ["Kitchen", "Tea"] and item["attributes"] == ["colour=red"]
    assert item["launch_time_ms"] == int(moment.timestamp() * 1000) and item["age_restricted"]
    assert shop.users().select("age", "gender", "country").rows() == [(31, "female", "GB")]


@pytest.mark.parametrize("name", ready_names())
def test_every_ready_mapping_says_where_the_data_is(name: str) -> None:
    assert load(name).name == name
    text = (Path(__file__).parents[2] / "features/importing/mappings" / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# ") and ("https://" in text or "python -m demo simulate" in text)
