-- name: take_lease
-- One shipper at a time: how far it is, or nothing when another one is at it.
update audit_archive
set holder = :holder, leased_until = now() + interval '60 seconds'
where one and (holder = :holder or leased_until < now())
returning shipped_to;

-- name: set_shipped
-- All segments up to this one are in ClickHouse.
update audit_archive set shipped_to = :shipped_to where one and holder = :holder;

-- name: get_shipped
-- How far the archive is.
select shipped_to from audit_archive where one;

-- name: get_border
-- Before this time all rows are in the archive alone; nothing when no month has left PostgreSQL.
select max(p.ends_at) from audit_partitions p where p.retired_at is not null;

-- name: get_retirable
-- The oldest month that is here, when it ended before a time.
select p.name, p.starts_at, p.ends_at
from audit_partitions p
where p.retired_at is null and p.ends_at < :before
    and not exists (select from audit_partitions e where e.starts_at < p.starts_at and e.retired_at is null);

-- name: get_range
-- The transactions that wrote rows of a month; nothing when it has none.
select min(a.xid) as first, max(a.xid) as last from user_audit a where a."timestamp" >= :since and a."timestamp" < :until;

-- name: take_partition
-- Drop a month, if it is what the archive has of it.
select coalesce(audit_retire_partition(:name, :rows, :digest), false);
