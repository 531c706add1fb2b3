"""GET and PATCH /v1/me: status, body, row, audit, outbox."""

from tests.service import Client


async def test_the_first_call_creates_the_user(client: Client) -> None:
    asha = client.user()
    reply = await asha.get()
    assert reply.status == 200, reply.body
    assert reply.headers["ETag"] == '"1"'
    body = reply.json()
    assert body["id"] == str(asha.id)
    reply = await asha.patch({"first_name": "Asha", "pan_number": "ABCPD1234E"})
    assert reply.status == 200, reply.body
    print(reply)
