set local lock_timeout = '5s';
set local statement_timeout = '60s';

create type audit_action as enum (
    'user.created', 'profile.read', 'profile.updated', 'pii.revealed', 'consent.granted', 'consent.revoked',
    'prefs.updated', 'kyc.initiated', 'kyc.updated', 'kyc.reviewed', 'status.changed', 'hold.placed', 'hold.lifted',
    'user.searched', 'user.exported', 'user.erased', 'artifact.read'
);
create type actor_kind as enum ('user', 'internal', 'admin', 'vendor', 'system');
create type access_purpose as enum ('support', 'compliance', 'fraud_investigation', 'legal_request', 'operations');

create table user_audit (
    event_id uuid not null,
    user_id uuid,
    actor_id uuid,
    actor_kind actor_kind not null,
    client text,
    action audit_action not null,
    resource text not null,
    old_value text,
    new_value text,
    ip_addr inet,
    ip_mac bytea,
    "timestamp" timestamptz not null,
    scope text,
    purpose access_purpose,
    request_id text,
    trace_id text,
    leaf_hash bytea not null,
    xid xid8 not null default pg_current_xact_id(),
    primary key (event_id, "timestamp")
) partition by range ("timestamp");
comment on table user_audit is 'Append-only. Values are JSON text, personal ones sealed; leaf_hash covers the canonical bytes.';
create index user_audit_trail on user_audit (user_id, "timestamp", event_id);
create index user_audit_order on user_audit (xid, event_id);

create function user_audit_guard() returns trigger language plpgsql as $$
begin
    raise exception 'user_audit is append-only.' using errcode = 'insufficient_privilege';
end
$$;
-- Row triggers reach the partitions; TRUNCATE of a partition fires its own, which audit_make_partitions adds.
create trigger user_audit_append_only before update or delete on user_audit
    for each row execute function user_audit_guard();
create trigger user_audit_no_truncate before truncate on user_audit
    for each statement execute function user_audit_guard();

create table audit_partitions (
    name text primary key,
    starts_at timestamptz not null unique,
    ends_at timestamptz not null
);
comment on table audit_partitions is 'One row a partition of user_audit; written by audit_make_partitions alone.';

-- Makes the partitions of this month and the months ahead that are missing, and returns how many it made.
-- A table is filled in beside and attached, because ATTACH does not lock readers and writers out and PARTITION OF does.
create function audit_make_partitions(months_ahead integer) returns integer
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    month timestamptz := date_trunc('month', now(), 'UTC');
    part text;
    made integer := 0;
begin
    perform pg_advisory_xact_lock(hashtext('audit_make_partitions'));
    for i in 0 .. least(months_ahead, 36) loop
        part := 'user_audit_' || to_char(month at time zone 'UTC', 'YYYY_MM');
        if not exists (select from audit_partitions p where p.starts_at = month) then
            execute format('create table public.%I (like public.user_audit including defaults including constraints)', part);
            execute format('create trigger user_audit_no_truncate before truncate on public.%I '
                           'for each statement execute function public.user_audit_guard()', part);
            execute format('alter table public.user_audit attach partition public.%I for values from (%L) to (%L)',
                           part, month, (month at time zone 'UTC' + interval '1 month') at time zone 'UTC');
            insert into audit_partitions
            values (part, month, (month at time zone 'UTC' + interval '1 month') at time zone 'UTC');
            made := made + 1;
        end if;
        month := (month at time zone 'UTC' + interval '1 month') at time zone 'UTC';
    end loop;
    return made;
end
$$;
revoke all on function audit_make_partitions(integer) from public;
select audit_make_partitions(6);

grant select, insert on user_audit to usercore_app;
grant select on audit_partitions to usercore_app;
grant execute on function audit_make_partitions(integer) to usercore_app;
