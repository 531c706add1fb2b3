set local lock_timeout = '5s';
set local statement_timeout = '60s';

create table audit_clusters (
    number integer primary key,
    system bigint not null,
    shift bigint not null,
    since timestamptz not null default now()
);
comment on table audit_clusters is 'The clusters that this trail has lived in. Transaction numbers of a new one begin low: shift is added to them, so that what is written after a restore comes after all that was restored.';
grant select on audit_clusters to usercore_app;
create trigger audit_clusters_append_only before update or delete on audit_clusters
    for each row execute function user_audit_guard();
create trigger audit_clusters_no_truncate before truncate on audit_clusters
    for each statement execute function user_audit_guard();
insert into audit_clusters (number, system, shift) select 1, c.system_identifier, 0 from pg_control_system() c;

-- For each connection of the service: a row that is written under a restored trail before audit_go_on() was called would
-- come before what is sealed, and never be sealed itself.
create function audit_check_cluster() returns void language plpgsql stable set search_path = pg_catalog, public, pg_temp
as $$
begin
    if (select c.system from audit_clusters c order by c.number desc limit 1)
        <> (select c.system_identifier from pg_control_system() c)
    then
        raise exception 'This database was restored into another cluster.'
            using errcode = 'object_not_in_prerequisite_state', hint = 'Run: usercore migrate';
    end if;
end
$$;

-- The owner's, after a restore into another cluster: the trail goes on after its last transaction. Returns what is added
-- to the numbers of this cluster's transactions from now on; null when the trail is at home here.
create function audit_go_on() returns bigint language plpgsql set search_path = pg_catalog, public, pg_temp as $$
declare
    here bigint := (select c.system_identifier from pg_control_system() c);
    behind bigint;
begin
    lock table audit_clusters in share row exclusive mode;
    if here = (select c.system from audit_clusters c order by c.number desc limit 1) then
        return null;
    end if;
    lock table user_audit in access exclusive mode;
    select greatest(
        coalesce((select max(s.to_xid) from audit_segments s), '0'),
        coalesce((select a.xid from user_audit a order by a.xid desc limit 1), '0')
    )::text::bigint + 1 - pg_current_xact_id()::text::bigint into behind;
    behind := greatest(behind, 0);
    execute format(
        'alter table user_audit alter column xid set default ((pg_current_xact_id()::text::bigint + %s)::text::xid8)',
        behind
    );
    insert into audit_clusters (number, system, shift)
    select max(c.number) + 1, here, behind from audit_clusters c;
    return behind;
end
$$;
revoke all on function audit_go_on() from public;
