-- name: add_users
-- Everything a new user consists of, for a whole batch: rows, keys, audit and event, only for ids that are new.
-- An erased user's row is still there and conflicts, so creation never revives it. Ordered, so that two batches with
-- the same ids wait for each other and do not deadlock.
with incoming as (
    select * from unnest(:users.id::uuid[], :users.email::text[], :users.created_at::timestamptz[])
        as n(id, email, created_at)
),
added as (
    insert into users (id, auth_id, created_at, updated_at)
    select n.id, n.id, n.created_at, n.created_at from incoming n order by n.id
    on conflict do nothing
    returning id
),
profiles as (
    insert into user_profiles (user_id, email, updated_at)
    select n.id, n.email, n.created_at from incoming n join added using (id)
),
prefs as (
    insert into notification_prefs (user_id, updated_at)
    select n.id, n.created_at from incoming n join added using (id)
),
keys as (
    insert into user_keys (user_id, retention_class, version, epoch, wrapped)
    select k.user_id, k.retention_class, k.version, k.epoch, k.wrapped
    from unnest(
        :keys.user_id::uuid[], :keys.retention_class::retention_class[], :keys.version::smallint[],
        :keys.epoch::integer[], :keys.wrapped::bytea[]
    ) as k(user_id, retention_class, version, epoch, wrapped)
    join added on added.id = k.user_id
),
audited as (
    insert into user_audit (
        event_id, user_id, actor_id, actor_kind, client, action, resource, old_value, new_value,
        ip_addr, ip_mac, "timestamp", scope, purpose, request_id, trace_id, leaf_hash
    )
    select a.*
    from unnest(
        :audit.event_id::uuid[], :audit.user_id::uuid[], :audit.actor_id::uuid[], :audit.actor_kind::actor_kind[],
        :audit.client::text[], :audit.action::audit_action[], :audit.resource::text[],
        :audit.old_value::text[], :audit.new_value::text[], :audit.ip_addr::inet[], :audit.ip_mac::bytea[],
        :audit.timestamp::timestamptz[], :audit.scope::text[], :audit.purpose::access_purpose[],
        :audit.request_id::text[], :audit.trace_id::text[], :audit.leaf_hash::bytea[]
    ) as a(event_id, user_id)
    join added on added.id = a.user_id
),
published as (
    insert into outbox (event_id, user_id, topic, payload, occurred_at, traceparent)
    select e.*
    from unnest(
        :events.event_id::uuid[], :events.user_id::uuid[], :events.topic::text[], :events.payload::text[],
        :events.occurred_at::timestamptz[], :events.traceparent::text[]
    ) as e(event_id, user_id)
    join added on added.id = e.user_id
)
select id from added;

-- name: lock_user
-- Hold the users row until the transaction ends. Every emitting verb begins here, so a user's events are in the order
-- of their commits. Alone, because a join or subquery in the statement that waits for the lock would show what was
-- there before the wait.
select u.id, u.status, u.kyc_status, u.kyc_tier, u.version, u.verified_at, u.activated_at, u.closed_at, u.erased_at
from users u
where u.id = :user_id
for update;

-- name: get_version
-- For conditional requests and HEAD, which open nothing.
select u.version, u.erased_at from users u where u.id = :user_id;
