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

-- name: read_profiles
-- The read that is its own audit: one statement inserts a row for each reader and returns the sealed fields, so there
-- is no answer without its row. Repeated after a lost connection it finds its rows there. Readers of unknown and
-- erased users leave no row and get nothing, or the tombstone.
with readers as (
    select *
    from unnest(
        :reads.event_id::uuid[], :reads.user_id::uuid[], :reads.actor_id::uuid[], :reads.actor_kind::actor_kind[],
        :reads.client::text[], :reads.action::audit_action[], :reads.resource::text[],
        :reads.old_value::text[], :reads.new_value::text[], :reads.ip_addr::inet[], :reads.ip_mac::bytea[],
        :reads.timestamp::timestamptz[], :reads.scope::text[], :reads.purpose::access_purpose[],
        :reads.request_id::text[], :reads.trace_id::text[], :reads.leaf_hash::bytea[]
    ) as r(event_id, user_id, actor_id, actor_kind, client, action, resource, old_value, new_value,
           ip_addr, ip_mac, "timestamp", scope, purpose, request_id, trace_id, leaf_hash)
),
audited as (
    insert into user_audit (
        event_id, user_id, actor_id, actor_kind, client, action, resource, old_value, new_value,
        ip_addr, ip_mac, "timestamp", scope, purpose, request_id, trace_id, leaf_hash
    )
    select r.*
    from readers r join users u on u.id = r.user_id
    where u.erased_at is null
    on conflict do nothing
)
select
    u.id, u.status, u.kyc_status, u.kyc_tier, u.version, u.created_at, u.updated_at, u.verified_at, u.erased_at,
    p.first_name_enc, p.last_name_enc, p.date_of_birth_enc, p.pan_number_enc, p.aadhaar_last4_enc, p.address_enc,
    p.phone_enc, p.email::text as email, p.avatar_url, p.pan_number_index, p.phone_index,
    p.updated_at as profile_updated_at,
    k.classes as key_classes, k.versions as key_versions, k.epochs as key_epochs, k.wraps as key_wraps,
    r.event_id as read_id
from readers r
join users u on u.id = r.user_id
join user_profiles p on p.user_id = u.id
cross join lateral (
    select
        array_agg(retention_class) as classes, array_agg(version) as versions,
        array_agg(epoch) as epochs, array_agg(wrapped) as wraps
    from user_keys where user_keys.user_id = u.id
) as k;

-- name: lock_user
-- Hold the users row until the transaction ends. Every emitting verb begins here, so a user's events are in the order
-- of their commits. Alone, because a join or subquery in the statement that waits for the lock would show what was
-- there before the wait.
select u.id, u.status, u.kyc_status, u.kyc_tier, u.version, u.activated_at, u.closed_at, u.erased_at
from users u
where u.id = :user_id
for update;

-- name: get_profile
-- The whole user with its sealed fields and keys.
select
    u.id, u.status, u.kyc_status, u.kyc_tier, u.version, u.created_at, u.updated_at, u.verified_at, u.erased_at,
    p.first_name_enc, p.last_name_enc, p.date_of_birth_enc, p.pan_number_enc, p.aadhaar_last4_enc, p.address_enc,
    p.phone_enc, p.email::text as email, p.avatar_url, p.pan_number_index, p.phone_index,
    p.updated_at as profile_updated_at,
    k.classes as key_classes, k.versions as key_versions, k.epochs as key_epochs, k.wraps as key_wraps
from users u
join user_profiles p on p.user_id = u.id
cross join lateral (
    select
        array_agg(retention_class) as classes, array_agg(version) as versions,
        array_agg(epoch) as epochs, array_agg(wrapped) as wraps
    from user_keys where user_keys.user_id = u.id
) as k
where u.id = :user_id;

-- name: list_open_effects
-- What the open holds of a user do; a derived status depends on it.
select distinct h.effect from account_holds h where h.user_id = :user_id and h.lifted_at is null;

-- name: get_version
-- For conditional requests and HEAD, which open nothing.
select u.version, u.erased_at from users u where u.id = :user_id;

-- name: save_profile
-- The whole profile row, guarded by the version it was read at; bumps the user's version.
with bumped as (
    update users set version = version + 1, updated_at = :profile.updated_at
    where id = :profile.user_id and version = :version
    returning id, version
)
update user_profiles p
set first_name_enc = :profile.first_name_enc, last_name_enc = :profile.last_name_enc,
    date_of_birth_enc = :profile.date_of_birth_enc, pan_number_enc = :profile.pan_number_enc,
    aadhaar_last4_enc = :profile.aadhaar_last4_enc, address_enc = :profile.address_enc,
    phone_enc = :profile.phone_enc, email = :profile.email, avatar_url = :profile.avatar_url,
    pan_number_index = :profile.pan_number_index, phone_index = :profile.phone_index,
    updated_at = :profile.updated_at
from bumped
where p.user_id = bumped.id
returning bumped.version;

-- name: add_user_keys
-- A further version of a data key, when the one before is lost.
insert into user_keys (user_id, retention_class, version, epoch, wrapped)
select k.user_id, k.retention_class, k.version, k.epoch, k.wrapped
from unnest(
    :keys.user_id::uuid[], :keys.retention_class::retention_class[], :keys.version::smallint[],
    :keys.epoch::integer[], :keys.wrapped::bytea[]
) as k(user_id, retention_class, version, epoch, wrapped);

-- name: list_without_email
-- Which of these users still wait for their e-mail address.
select p.user_id
from user_profiles p join users u on u.id = p.user_id
where p.user_id = any(:user_ids::uuid[]) and p.email is null and u.erased_at is null
order by p.user_id;

-- name: accept_hold
-- Place a hold once: a replayed event finds the hold that it placed before, lifted or not.
insert into account_holds (id, user_id, effect, source, reason, note_enc, placed_by, placed_at, source_event_id)
values (:hold.id, :hold.user_id, :hold.effect, :hold.source, :hold.reason, :hold.note_enc, :hold.placed_by,
        :hold.placed_at, :hold.source_event_id)
on conflict (source_event_id) do nothing
returning true;

-- name: set_status
-- Write the status that was derived, and bump the version.
update users set status = :status, version = version + 1, updated_at = :at where id = :user_id
returning version;

-- name: accept_auth_events
-- Remember consumed events; those that were consumed before are not returned. Ordered against deadlocks.
insert into inbox (topic, event_id)
select e.topic, e.event_id
from unnest(:topics::text[], :event_ids::uuid[]) as e(topic, event_id)
order by e.topic, e.event_id
on conflict do nothing
returning event_id;
