"""CatalogService: items checked and read, pages written."""

from __future__ import annotations

from braid.v1 import catalog_pb2 as pb
from braid.v1 import catalog_pb2_grpc
from features.schema import MAX_BATCH_ITEMS, MAX_PRICE, MAX_STOCK, MAX_TEXT_CHARS
from features.shop.catalogue import CatalogueItem
from server.deadline import Deadline
from server.errors import NotFound
from server.record.shop_records import ShopRecords
from server.services.calls import Limit, answers
from server.services.fields import Fields
from server.services.page_tokens import page_token, read_page_token
from server.services.shopper_fields import page_size
from server.services.timestamps import timestamp

DEFAULT_LIST_SIZE = 100
MAX_LIST_SIZE = 1_000
MASKABLE = ("price", "stock", "title")


class CatalogService(catalog_pb2_grpc.CatalogServiceServicer):
    """What the shop sells."""

    def __init__(self, records: ShopRecords, limit: Limit) -> None:
        self._records = records
        self.limit = limit

    @answers
    async def UpsertItems(self, request: pb.UpsertItemsRequest, deadline: Deadline) -> pb.UpsertItemsResponse:
        """All items or none."""
        fields = Fields()
        items: list[CatalogueItem] = []
        if fields.count("items", request.items, MAX_BATCH_ITEMS, 1):
            items = [
                catalogue_item(fields.within(f"items[{number}]"), item) for number, item in enumerate(request.items)
            ]
            fields.once("items", "item_id", (item.item_id for item in request.items))
        names = list(dict.fromkeys(request.update_mask.paths))
        for name in names:
            if name not in MASKABLE:
                fields.refuse("update_mask", f"names {name!r}; only {', '.join(MASKABLE)} are allowed")
        fields.done()
        return pb.UpsertItemsResponse(upserted_count=await self._records.upsert_items(items, names or None, deadline))

    @answers
    async def GetItem(self, request: pb.GetItemRequest, deadline: Deadline) -> pb.GetItemResponse:
        """One item."""
        fields = Fields()
        fields.text("item_id", request.item_id, required=True)
        fields.done()
        item = await self._records.item(request.item_id, deadline)
        if item is None:
            raise NotFound(f"item_id: the catalogue has no {request.item_id!r}; add it with UpsertItems")
        return pb.GetItemResponse(item=_message(item))

    @answers
    async def ListItems(self, request: pb.ListItemsRequest, deadline: Deadline) -> pb.ListItemsResponse:
        """A page of the catalogue."""
        fields = Fields()
        size = page_size(fields, request.page_size, DEFAULT_LIST_SIZE, MAX_LIST_SIZE)
        after = read_page_token(fields, request.page_token, "ListItems")
        fields.done()
        items = await self._records.items(after, size + 1, deadline)
        token = page_token(items[size - 1].item_id) if len(items) > size else ""
        return pb.ListItemsResponse(items=[_message(item) for item in items[:size]], next_page_token=token)

    @answers
    async def DeleteItems(self, request: pb.DeleteItemsRequest, deadline: Deadline) -> pb.DeleteItemsResponse:
        """Takes items out."""
        fields = Fields()
        if fields.count("item_ids", request.item_ids, MAX_BATCH_ITEMS, 1):
            fields.texts("item_ids", request.item_ids, MAX_BATCH_ITEMS)
        fields.done()
        item_ids = list(dict.fromkeys(request.item_ids))
        return pb.DeleteItemsResponse(deleted_count=await self._records.delete_items(item_ids, deadline))


def catalogue_item(fields: Fields, item: pb.Item) -> CatalogueItem:
    """One item, checked."""
    return CatalogueItem(
        item_id=fields.text("item_id", item.item_id, required=True),
        title=fields.text("title", item.title, MAX_TEXT_CHARS) or None,
        category_path=list(fields.category("category_path", item.category_path)),
        brand=fields.text("brand", item.brand) or None,
        price=fields.number("price", item.price, 0.0, MAX_PRICE) if item.HasField("price") else None,
        stock=fields.number("stock", item.stock, 0, MAX_STOCK) if item.HasField("stock") else None,
        attributes=fields.attributes(dict(item.attributes)),
        variant_group=fields.text("variant_group", item.variant_group) or None,
        age_restricted=item.age_restricted,
        launch_time_ms=fields.time_ms("launch_time", item.launch_time) if item.HasField("launch_time") else None,
    )


def _message(item: CatalogueItem) -> pb.Item:
    return pb.Item(
        item_id=item.item_id,
        title=item.title or "",
        category_path=item.category_path,
        brand=item.brand or "",
        price=item.price,
        stock=item.stock,
        attributes=item.attributes,
        variant_group=item.variant_group or "",
        age_restricted=item.age_restricted,
        launch_time=timestamp(item.launch_time_ms),
    )
