-- name: add_records
-- The audit rows of a change and its outbox rows, in one statement. Two CTEs, because a verb has one of each at most
-- and a batch has many; an unnest of nothing inserts nothing.
with audited as (
    insert into user_audit (
        event_id, user_id, actor_id, actor_kind, client, action, resource, old_value, new_value,
        ip_addr, ip_mac, "timestamp", scope, purpose, request_id, trace_id, leaf_hash
    )
    select *
    from unnest(
        :audit.event_id::uuid[], :audit.user_id::uuid[], :audit.actor_id::uuid[], :audit.actor_kind::actor_kind[],
        :audit.client::text[], :audit.action::audit_action[], :audit.resource::text[],
        :audit.old_value::text[], :audit.new_value::text[], :audit.ip_addr::inet[], :audit.ip_mac::bytea[],
        :audit.timestamp::timestamptz[], :audit.scope::text[], :audit.purpose::access_purpose[],
        :audit.request_id::text[], :audit.trace_id::text[], :audit.leaf_hash::bytea[]
    )
)
insert into outbox (event_id, user_id, topic, payload, occurred_at, traceparent)
select *
from unnest(
    :events.event_id::uuid[], :events.user_id::uuid[], :events.topic::text[], :events.payload::text[],
    :events.occurred_at::timestamptz[], :events.traceparent::text[]
);

-- name: get_backlog
-- How many events wait, and since when.
select count(*) as depth, min(o.occurred_at) as oldest from outbox o;

-- name: take_consumed
-- Forget events that were consumed so long ago that Kafka no longer has them.
delete from inbox where received_at < now() - interval '30 days';
