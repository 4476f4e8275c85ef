"""UserService: profiles checked, read and written."""

from __future__ import annotations

from braid.v1 import user_pb2 as pb
from braid.v1 import user_pb2_grpc
from features.schema import MAX_AGE, MAX_BATCH_USERS, MAX_NAME_CHARS
from features.shop.users import UserProfile
from server.deadline import Deadline
from server.errors import NotFound
from server.record.shop_records import ShopRecords
from server.services.calls import Limit, answers
from server.services.fields import Fields


class UserService(user_pb2_grpc.UserServiceServicer):
    """What the shop knows of a person."""

    def __init__(self, records: ShopRecords, limit: Limit) -> None:
        self._records = records
        self.limit = limit

    @answers
    async def UpsertUsers(self, request: pb.UpsertUsersRequest, deadline: Deadline) -> pb.UpsertUsersResponse:
        """All users or none."""
        fields = Fields()
        users: list[UserProfile] = []
        if fields.count("users", request.users, MAX_BATCH_USERS, 1):
            users = [_user(fields.within(f"users[{number}]"), user) for number, user in enumerate(request.users)]
            fields.once("users", "user_id", (user.user_id for user in request.users))
        fields.done()
        await self._records.upsert_users(users, deadline)
        return pb.UpsertUsersResponse(upserted_count=len(users))

    @answers
    async def GetUser(self, request: pb.GetUserRequest, deadline: Deadline) -> pb.GetUserResponse:
        """One person's attributes."""
        fields = Fields()
        fields.text("user_id", request.user_id, required=True)
        fields.done()
        user = await self._records.user(request.user_id, deadline)
        if user is None:
            raise NotFound(f"user_id: nothing was ever said of {request.user_id!r}; add it with UpsertUsers")
        return pb.GetUserResponse(
            user=pb.User(
                user_id=user.user_id,
                age=user.age,
                gender=user.gender or "",
                country=user.country or "",
                attributes=user.attributes,
            )
        )


def _user(fields: Fields, user: pb.User) -> UserProfile:
    return UserProfile(
        user_id=fields.text("user_id", user.user_id, required=True),
        age=fields.number("age", user.age, 0, MAX_AGE) if user.HasField("age") else None,
        gender=fields.text("gender", user.gender, MAX_NAME_CHARS) or None,
        country=fields.text("country", user.country, MAX_NAME_CHARS) or None,
        attributes=fields.attributes(dict(user.attributes)),
    )
