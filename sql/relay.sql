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
select o.event_id, o.user_id, o.topic, o.payload, o.occurred_at, o.traceparent, o.id
from outbox o
where o.shard = :shard
order by o.id
limit :most;

-- name: take_published
-- Delete what Kafka acknowledged.
delete from outbox where shard = :shard and id = any(:ids::bigint[]);
