"""Reads and writes of catalogue, users and placement rules; a change is in this process's answers when it returns."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine

from features.erasure.tombstones import Tombstones
from features.shop.catalogue import Catalogue, CatalogueItem
from features.shop.placement_rules import Rule, RuleTable, TooManyRules
from features.shop.users import ErasedUsers, UserProfile, Users
from server.catalogue.catalogue_follower import CatalogueFollower
from server.deadline import Deadline
from server.errors import InvalidRequest, Violation
from server.following import take_in
from server.record.database_work import DatabaseWork
from server.select.placement_rules import PlacementRules


class ShopRecords:
    """The database behind CatalogService, UserService and PlacementService."""

    def __init__(
        self,
        engine: Engine,
        tombstones: Tombstones,
        follower: CatalogueFollower,
        placement_rules: PlacementRules,
        *,
        budget_s: float,
    ) -> None:
        self._catalogue = Catalogue(engine)
        self._users = Users(engine, tombstones)
        self._rules = RuleTable(engine)
        self._follower = follower
        self._placement_rules = placement_rules
        self._work = DatabaseWork("the shop's records", budget_s=budget_s)

    async def upsert_items(
        self, items: Sequence[CatalogueItem], fields: Sequence[str] | None, deadline: Deadline
    ) -> int:
        """How many were written; durable, and in this process's answers, when it returns."""
        count = await self._work.write(lambda: self._catalogue.upsert(items, fields), deadline)
        await take_in(self._follower.refresh, "the catalogue")
        return count

    async def delete_items(self, item_ids: Sequence[str], deadline: Deadline) -> int:
        """How many were there; they are in no answer of this process when it returns."""
        count = await self._work.write(lambda: self._catalogue.delete(item_ids), deadline)
        await take_in(self._follower.refresh, "the catalogue")
        return count

    async def item(self, item_id: str, deadline: Deadline) -> CatalogueItem | None:
        """One item, or None."""
        return await self._work.read(lambda: self._catalogue.get(item_id), deadline)

    async def items(self, after: str, limit: int, deadline: Deadline) -> list[CatalogueItem]:
        """A page of the catalogue by id."""
        return await self._work.read(lambda: self._catalogue.list(after, limit), deadline)

    async def upsert_users(self, users: Sequence[UserProfile], deadline: Deadline) -> None:
        """Durable when it returns.

        Raises:
            InvalidRequest: some were erased; nothing was written.
        """
        try:
            await self._work.write(lambda: self._users.upsert(users), deadline)
        except ErasedUsers as error:
            raise InvalidRequest(
                [
                    Violation(f"users[{number}].user_id", "was erased; one who registers again needs a new user_id")
                    for number, user in enumerate(users)
                    if user.user_id in error.user_ids
                ]
            ) from None

    async def user(self, user_id: str, deadline: Deadline) -> UserProfile | None:
        """One profile, or None."""
        return await self._work.read(lambda: self._users.get(user_id), deadline)

    async def upsert_rules(self, rules: Sequence[Rule], deadline: Deadline) -> None:
        """Durable, and in this process's answers, when it returns.

        Raises:
            InvalidRequest: the shop would have too many; nothing was written.
        """
        try:
            await self._work.write(lambda: self._rules.upsert(rules), deadline)
        except TooManyRules as error:
            raise InvalidRequest([Violation("rules", str(error))]) from None
        await take_in(self._placement_rules.refresh, "the placement rules")

    async def delete_rules(self, rule_ids: Sequence[str], deadline: Deadline) -> int:
        """How many were there; they change no answer of this process when it returns."""
        count = await self._work.write(lambda: self._rules.delete(rule_ids), deadline)
        await take_in(self._placement_rules.refresh, "the placement rules")
        return count

    async def rules(self, after: str, limit: int, placement: str, deadline: Deadline) -> list[Rule]:
        """A page of the rules by id."""
        return await self._work.read(lambda: self._rules.list(after, limit, placement), deadline)

    def close(self) -> None:
        """Ends the threads after the work under way."""
        self._work.close()
