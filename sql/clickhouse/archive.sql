-- name: add_rows
-- Rows of sealed segments. Sent twice they are one: the table replaces, and every reader takes one of each event id.
insert into user_audit (
    segment, xid, event_id, user_id, actor_id, actor_kind, client, action, resource, old_value, new_value, ip_mac,
    timestamp_us, scope, purpose, request_id, trace_id, leaf_hash
) values;

-- name: list_trail
-- Rows of one user before a position and before the end of what left PostgreSQL, newest first.
-- Event ids are compared as text, which is the order of their bytes and so PostgreSQL's.
select
    event_id, user_id, actor_id, actor_kind, client, action, resource, old_value, new_value, timestamp_us, purpose
from user_audit
where user_id = toUUID(:user_id) and timestamp_us >= :since_us and timestamp_us < :until_us
    and (timestamp_us < :before_us or (timestamp_us = :before_us and toString(event_id) < toString(:before_id)))
    and action in :actions and actor_kind in :actor_kinds
order by timestamp_us desc, toString(event_id) desc
limit 1 by event_id
limit :most;

-- name: list_segment
-- Everything that is here of a range of segments, in the order in which it was sealed; what was sent twice is twice.
select
    segment, xid, event_id, user_id, actor_id, actor_kind, client, action, resource, old_value, new_value, hex(ip_mac),
    timestamp_us, scope, purpose, request_id, trace_id, hex(leaf_hash)
from user_audit
where segment >= :first and segment <= :last
order by segment, xid, toString(event_id);

-- name: get_extent
-- How much is here. Rows that were sent twice count twice until they are merged.
select count(), max(segment) from user_audit;
