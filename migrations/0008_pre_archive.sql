set local lock_timeout = '5s';
set local statement_timeout = '60s';

create table audit_archive (
    one boolean primary key default true check (one),
    shipped_to bigint not null default 0,
    holder uuid,
    leased_until timestamptz not null default '-infinity'
);
comment on table audit_archive is 'How far the trail is in ClickHouse (the last segment), and who is shipping: one row.';
insert into audit_archive default values;
grant select on audit_archive to usercore_app;
grant update (shipped_to, holder, leased_until) on audit_archive to usercore_app;

alter table audit_partitions add column retired_at timestamptz;
comment on column audit_partitions.retired_at is 'Since then the rows of this month are in the archive alone.';

-- Drops a month that is over, when what the archive has of it is what is here: `expected_rows` rows, and
-- `expected_digest` = SHA-256 over the SHA-256 of each segment's leaves, in order. Returns false when it is not.
create function audit_retire_partition(part text, expected_rows bigint, expected_digest bytea) returns boolean
language plpgsql security definer set search_path = pg_catalog, public, pg_temp
-- DETACH locks the trail for a moment: whoever is at it for longer is not to hold up everybody behind us.
set lock_timeout = '1s' as $$
declare
    found_rows bigint;
    sealed_rows bigint;
    found_digest bytea;
begin
    perform from audit_partitions p
    where p.name = part and p.retired_at is null and p.ends_at < now() - interval '1 day'
        and not exists (select from audit_partitions e where e.starts_at < p.starts_at and e.retired_at is null)
    for update;
    if not found then
        raise exception 'This partition is not the oldest one, or not over for a day.' using errcode = 'object_in_use';
    end if;
    -- Waits for transactions that still write to it, and lets no other in; readers stay.
    execute format('lock table public.%I in share mode', part);
    execute format('select count(*) from public.%I', part) into found_rows;
    execute format(
        'select coalesce(sum(l.n), 0), sha256(coalesce(string_agg(l.digest, '''' order by l.number), '''')) from ('
        '  select s.number, count(*) as n, sha256(string_agg(a.leaf_hash, '''' order by a.xid, a.event_id)) as digest'
        '  from public.%I a join public.audit_segments s on a.xid >= s.from_xid and a.xid < s.to_xid'
        '  group by s.number'
        ') l', part) into sealed_rows, found_digest;
    if found_rows <> expected_rows or sealed_rows <> expected_rows or found_digest <> expected_digest then
        return false;
    end if;
    execute format('alter table public.user_audit detach partition public.%I', part);
    execute format('drop table public.%I', part);
    update audit_partitions set retired_at = now() where name = part;
    return true;
end
$$;
revoke all on function audit_retire_partition(text, bigint, bytea) from public;
grant execute on function audit_retire_partition(text, bigint, bytea) to usercore_app;
