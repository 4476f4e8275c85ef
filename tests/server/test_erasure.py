"""DeleteUser through the gateway: gone when it answers, refused when it comes back, said when it cannot be done."""

from __future__ import annotations

import grpc
import pytest

from braid.v1 import event_pb2 as pb
from braid.v1 import user_pb2
from tests.features.erasable import files_that_name
from tests.server.client import Client, RunningGateway, new_event, refusal

VIEW = pb.EVENT_TYPE_VIEW
STORED, ERASED = pb.EventStatus.CODE_STORED, pb.EventStatus.CODE_ERASED
PERSON, SESSION = "forget-me-8c1f2d90", "forget-me-visit-77ab"


def delete(client: Client, **fields: str) -> pb.DeleteUserResponse:
    """One call of DeleteUser."""
    return client.events.DeleteUser(pb.DeleteUserRequest(**fields), timeout=120)


def test_a_person_is_gone_when_it_answers_and_is_refused_after(empty_shop: RunningGateway) -> None:
    client, home = empty_shop.client, empty_shop.settings.home
    client.users.UpsertUsers(user_pb2.UpsertUsersRequest(users=[user_pb2.User(user_id=PERSON, age=30)]), timeout=10)
    assert client.write(new_event(VIEW, "cup", user_id=PERSON, session_id=SESSION)) == [STORED]
    assert files_that_name(home, PERSON)
    delete(client, user_id=PERSON)
    assert files_that_name(home, PERSON, SESSION) == set()
    late = [
        new_event(VIEW, "cup", user_id=PERSON),
        new_event(VIEW, "cup", session_id=SESSION),
        new_event(VIEW, "cup", user_id="still-here"),
    ]
    answer = client.events.WriteEvents(pb.WriteEventsRequest(events=late), timeout=10)
    assert [status.code for status in answer.statuses] == [ERASED, ERASED, STORED]
    assert "needs a new user_id" in answer.statuses[0].description
    get = user_pb2.GetUserRequest(user_id=PERSON)
    assert refusal(lambda: client.users.GetUser(get, timeout=10))[0] is grpc.StatusCode.NOT_FOUND
    people = [user_pb2.User(user_id="still-here"), user_pb2.User(user_id=PERSON)]
    code, fields = refusal(lambda: client.users.UpsertUsers(user_pb2.UpsertUsersRequest(users=people), timeout=10))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert fields == {"users[1].user_id": "was erased; one who registers again needs a new user_id"}
    delete(client, user_id=PERSON)
    assert files_that_name(home, PERSON, SESSION) == set()
    assert "a person was erased in" in empty_shop.log


def test_a_session_is_erased_by_its_own_id(empty_client: Client) -> None:
    assert empty_client.write(new_event(VIEW, "cup", session_id="lone-visit")) == [STORED]
    delete(empty_client, session_id="lone-visit")
    assert empty_client.write(new_event(VIEW, "cup", session_id="lone-visit")) == [ERASED]


@pytest.mark.parametrize(
    ("fields", "violation"),
    [
        ({}, {"user_id": "user_id and session_id are both empty; give at least one"}),
        ({"user_id": "u" * 129}, {"user_id": "has 129 characters, at most 128 are allowed"}),
        (
            {"user_id": "u", "session_id": "s"},
            {"session_id": "is given with user_id; give one of them, a person's sessions are known"},
        ),
    ],
)
def test_whom_to_erase_must_be_said_once(
    empty_client: Client, fields: dict[str, str], violation: dict[str, str]
) -> None:
    code, found = refusal(lambda: delete(empty_client, **fields))
    assert (code, found) == (grpc.StatusCode.INVALID_ARGUMENT, violation)
