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

-- name: list_pending_shards
-- The shards that hold something, oldest first: one look at sixteen ends of an index.
select s.shard
from generate_series(0, 15) as s(shard)
cross join lateral (
    select o.occurred_at from outbox o where o.shard = s.shard order by o.id limit 1
) as oldest
order by oldest.occurred_at;

-- name: has_shard_lock
-- Take the shard for this transaction, if no other relay has it. 1869968498 is 'outbox' as a lock class.
select pg_try_advisory_xact_lock(1869968498, :shard);

-- name: list_shard
-- In order of insertion: every emitting verb locks its user first, so a user's rows are in the order of their commits.
select o.id, o.event_id, o.user_id, o.topic, o.payload, o.occurred_at, o.traceparent
from outbox o
where o.shard = :shard
order by o.id
limit :most;

-- name: take_published
-- Delete what Kafka acknowledged.
delete from outbox where shard = :shard and id = any(:ids::bigint[]);

-- name: get_backlog
-- How many events wait, and since when.
select count(*) as depth, min(o.occurred_at) as oldest from outbox o;
