-- name: has_role
-- Migrations grant to the app role and cannot create it: roles belong to the whole server.
select exists (select from pg_roles where rolname = :role);

-- name: has_bookkeeping
-- False on a database that was never migrated.
select to_regclass('usercore_migrations') is not null;

-- name: add_bookkeeping
-- What was applied and with which content: yoyo's own table knows ids only, and an edited file would pass.
create table if not exists usercore_migrations (
    id text primary key,
    content_hash text not null,
    applied_at timestamptz not null default now()
);

-- name: add_bookkeeping_grant
-- Readiness compares the head of this table with the head of the files.
grant select on usercore_migrations to usercore_app;

-- name: list_applied
select m.id, m.content_hash, m.applied_at from usercore_migrations m order by m.id;

-- name: get_applied_head
select m.id from usercore_migrations m order by m.id desc limit 1;

-- name: add_applied
insert into usercore_migrations (id, content_hash) values (:id, :content_hash);

-- name: take_applied
delete from usercore_migrations where id = :id;

-- name: has_clusters
-- False before the migration that made the function.
select to_regproc('audit_go_on') is not null;

-- name: go_on
-- Null when the trail is at home in this cluster.
select audit_go_on();

-- name: has_lock
-- A session lock: it ends with its connection, so a killed runner leaves nothing behind.
select pg_try_advisory_lock(:key::bigint);

-- name: lock_runner
select pg_advisory_lock(:key::bigint);

-- name: list_relations
-- Ids of everything that exists, so that a plan can tell old relations from the ones that it makes.
select c.oid from pg_class c;

-- name: list_locks
-- What this transaction has locked by now.
select c.oid, c.oid::regclass::text as relation, coalesce(l.mode, '') as mode
from pg_locks l
join pg_class c on c.oid = l.relation
where l.pid = pg_backend_pid()
    and l.locktype = 'relation'
    and l.database = (select d.oid from pg_database d where d.datname = current_database())
    and c.relkind in ('r', 'p', 'm')
    and c.relnamespace <> 'pg_catalog'::regnamespace
order by c.oid::regclass::text, l.mode;

-- name: set_plan_limits
-- A plan tries migrations for real: it waits for a lock, and holds what it has, for moments only.
select
    set_config('lock_timeout', :lock_timeout, true) as lock_timeout,
    set_config('statement_timeout', :statement_timeout, true) as statement_timeout;

-- name: list_stale_locks
-- yoyo's own lock is a row that survives kill -9; whoever holds our lock may remove it.
select l.pid from yoyo_lock l order by l.locked;
