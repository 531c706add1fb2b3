-- name: has_sealer_lock
-- One sealer at a time; the others have nothing to do.
select pg_try_advisory_xact_lock(hashtext('usercore audit sealer'));

-- name: get_horizon
-- Every transaction below it is over: what it wrote is there, and nothing more comes. Counted as the trail counts.
select (pg_snapshot_xmin(pg_current_snapshot())::text::bigint + c.shift)::text::xid8
from audit_clusters c
order by c.number desc
limit 1;

-- name: get_last_segment
-- Where the sealed part of the trail ends.
select s.number, s.to_xid, s.hash from audit_segments s order by s.number desc limit 1;

-- name: list_leaves
-- Leaves of a range of transactions, in their order.
select a.xid, a.event_id, a.leaf_hash
from user_audit a
where a.xid >= :from_xid and a.xid < :to_xid
order by a.xid, a.event_id
limit :most;

-- name: add_segment
-- The next piece of the sealed trail.
insert into audit_segments (
    number, from_xid, to_xid, count, leaves, root, previous, hash, sealed_at, key_version, signature
)
values (
    :segment.number, :segment.from_xid, :segment.to_xid, :segment.count, :segment.leaves, :segment.root,
    :segment.previous, :segment.hash, :segment.sealed_at, :segment.key_version, :segment.signature
);

-- name: list_segments
-- The pieces of the sealed trail after one, in their order.
select
    s.number, s.from_xid, s.to_xid, s.count, s.leaves, s.root, s.previous, s.hash, s.sealed_at, s.key_version, s.signature
from audit_segments s
where s.number > :after
order by s.number
limit :most;

-- name: list_ranges
-- Which transactions the pieces after one have, without their leaves.
select s.number, s.from_xid, s.to_xid, s.count from audit_segments s where s.number > :after order by s.number limit :most;

-- name: count_sealed
-- Rows in the pieces up to one.
select coalesce(sum(s.count), 0)::bigint from audit_segments s where s.number <= :number;

-- name: list_rows
-- Whole rows of a range of transactions, in the order in which they were sealed.
select
    a.xid, a.event_id, a.user_id, a.actor_id, a.actor_kind, a.client, a.action, a.resource, a.old_value, a.new_value,
    a.ip_mac, a."timestamp", a.scope, a.purpose, a.request_id, a.trace_id, a.leaf_hash
from user_audit a
where a.xid >= :from_xid and (:to_xid::xid8 is null or a.xid < :to_xid)
order by a.xid, a.event_id;

-- name: get_row_xid
-- The transaction that wrote a row of the trail.
select a.xid from user_audit a where a.event_id = :event_id limit 1;

-- name: get_segment_of
-- The piece that a transaction is in.
select
    s.number, s.from_xid, s.to_xid, s.count, s.leaves, s.root, s.previous, s.hash, s.sealed_at, s.key_version, s.signature
from audit_segments s
where s.to_xid > :xid
order by s.to_xid
limit 1;
