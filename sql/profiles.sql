-- name: read_profiles
-- The read that is its own audit: one statement inserts a row for each reader and returns the sealed fields, so there
-- is no answer without its row. Repeated after a lost connection it finds its rows there. Readers of unknown and
-- erased users leave no row and get nothing, or the tombstone.
with readers as (
    select *
    from unnest(
        :reads.event_id::uuid[], :reads.user_id::uuid[], :reads.actor_id::uuid[], :reads.actor_kind::actor_kind[],
        :reads.client::text[], :reads.action::audit_action[], :reads.resource::text[],
        :reads.old_value::text[], :reads.new_value::text[], :reads.ip_addr::text[], :reads.ip_mac::bytea[],
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
    select r.event_id, r.user_id, r.actor_id, r.actor_kind, r.client, r.action, r.resource, r.old_value, r.new_value,
           r.ip_addr::inet, r.ip_mac, r."timestamp", r.scope, r.purpose, r.request_id, r.trace_id, r.leaf_hash
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
