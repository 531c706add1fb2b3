-- name: read_profiles
-- The read that is its own audit: one statement inserts a row for each reader and returns the sealed fields, so there
-- is no answer without its row. Repeated after a lost connection it finds its rows there. Readers of unknown and
-- erased users leave no row and get nothing, or the tombstone. `offset 0` keeps the look-ups by key: the planner takes
-- any JSON for a hundred rows, and would rather read all of a small table.
with readers as (
    select
        r.event_id, r.user_id, r.actor_id, r.actor_kind, r.client, r.action, r.resource, r.old_value, r.new_value,
        r.ip_addr, decode(r.ip_mac, 'base64') as ip_mac, r."timestamp", r.scope, r.purpose, r.request_id, r.trace_id,
        decode(r.leaf_hash, 'base64') as leaf_hash
    from json_to_recordset(:reads) as r(
        event_id uuid, user_id uuid, actor_id uuid, actor_kind actor_kind, client text, action audit_action,
        resource text, old_value text, new_value text, ip_addr text, ip_mac text, "timestamp" timestamptz, scope text,
        purpose access_purpose, request_id text, trace_id text, leaf_hash text
    )
),
audited as (
    insert into user_audit (
        event_id, user_id, actor_id, actor_kind, client, action, resource, old_value, new_value,
        ip_addr, ip_mac, "timestamp", scope, purpose, request_id, trace_id, leaf_hash
    )
    select r.event_id, r.user_id, r.actor_id, r.actor_kind, r.client, r.action, r.resource, r.old_value, r.new_value,
           r.ip_addr::inet, r.ip_mac, r."timestamp", r.scope, r.purpose, r.request_id, r.trace_id, r.leaf_hash
    from readers r
    cross join lateral (select from users where users.id = r.user_id and users.erased_at is null offset 0) as u
    on conflict do nothing
)
select
    found.*, k.classes as key_classes, k.versions as key_versions, k.epochs as key_epochs, k.wraps as key_wraps,
    r.event_id as read_id
from readers r
cross join lateral (
    select
        u.id, u.status, u.kyc_status, u.kyc_tier, u.version, u.created_at, u.updated_at, u.verified_at, u.erased_at,
        p.first_name_enc, p.last_name_enc, p.date_of_birth_enc, p.pan_number_enc, p.aadhaar_last4_enc, p.address_enc,
        p.phone_enc, p.email::text as email, p.avatar_url, p.pan_number_index, p.phone_index,
        p.updated_at as profile_updated_at
    from users u join user_profiles p on p.user_id = u.id
    where u.id = r.user_id
    offset 0
) as found
cross join lateral (
    select
        array_agg(retention_class) as classes, array_agg(version) as versions,
        array_agg(epoch) as epochs, array_agg(wrapped) as wraps
    from user_keys where user_keys.user_id = found.id
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

-- name: list_profiles
-- The same of several users. Apart from the one, because on the pool's connections PostgreSQL would plan a look-up by an
-- array anew at each call.
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
where u.id = any(:user_ids::uuid[]);

-- name: save_profiles
-- Whole profiles with the audit rows and events of their changes, each guarded by the version it was read at: nothing
-- at all of a change is written when somebody else was faster, or holds the user just now; returned are the users that
-- were written. The users rows are locked first whatever is written: so they keep a user's events in the order of their
-- commits, and a change waits for nobody. The index of a value that stays is not written: a rotation of the index key
-- may have brought it under the newer one meanwhile.
with given as (
    select *
    from unnest(
        :profiles.user_id::uuid[], :profiles.version::integer[],
        :profiles.first_name_enc::sealed[], :profiles.last_name_enc::sealed[], :profiles.date_of_birth_enc::sealed[],
        :profiles.pan_number_enc::sealed[], :profiles.aadhaar_last4_enc::sealed[], :profiles.address_enc::sealed[],
        :profiles.phone_enc::sealed[], :profiles.email::citext[], :profiles.avatar_url::text[],
        :profiles.pan_number_index::bytea[], :profiles.phone_index::bytea[], :profiles.updated_at::timestamptz[]
    ) as g(
        user_id, version, first_name_enc, last_name_enc, date_of_birth_enc, pan_number_enc, aadhaar_last4_enc,
        address_enc, phone_enc, email, avatar_url, pan_number_index, phone_index, updated_at
    )
),
held as (
    select u.id
    from given g
    cross join lateral (
        select id from users where id = g.user_id and users.version = g.version for no key update skip locked
    ) as u
),
bumped as (
    update users u set version = u.version + 1, updated_at = g.updated_at
    from held join given g on g.user_id = held.id
    where u.id = held.id
    returning u.id
),
saved as (
    update user_profiles p
    set first_name_enc = g.first_name_enc, last_name_enc = g.last_name_enc, date_of_birth_enc = g.date_of_birth_enc,
        pan_number_enc = g.pan_number_enc, aadhaar_last4_enc = g.aadhaar_last4_enc, address_enc = g.address_enc,
        phone_enc = g.phone_enc, email = g.email, avatar_url = g.avatar_url,
        pan_number_index = case
            when p.pan_number_enc is distinct from g.pan_number_enc then g.pan_number_index else p.pan_number_index
        end,
        phone_index = case when p.phone_enc is distinct from g.phone_enc then g.phone_index else p.phone_index end,
        updated_at = g.updated_at
    from bumped join given g on g.user_id = bumped.id
    where p.user_id = bumped.id
),
audited as (
    insert into user_audit (
        event_id, user_id, actor_id, actor_kind, client, action, resource, old_value, new_value,
        ip_addr, ip_mac, "timestamp", scope, purpose, request_id, trace_id, leaf_hash
    )
    select
        a.event_id, a.user_id, a.actor_id, a.actor_kind, a.client, a.action, a.resource, a.old_value, a.new_value,
        a.ip_addr::inet, decode(a.ip_mac, 'base64'), a."timestamp", a.scope, a.purpose, a.request_id, a.trace_id,
        decode(a.leaf_hash, 'base64')
    from json_to_recordset(:audit) as a(
        event_id uuid, user_id uuid, actor_id uuid, actor_kind actor_kind, client text, action audit_action,
        resource text, old_value text, new_value text, ip_addr text, ip_mac text, "timestamp" timestamptz, scope text,
        purpose access_purpose, request_id text, trace_id text, leaf_hash text
    )
    join bumped on bumped.id = a.user_id
),
published as (
    insert into outbox (event_id, user_id, topic, payload, occurred_at, traceparent)
    select e.event_id, e.user_id, e.topic, e.payload, e.occurred_at, e.traceparent
    from json_to_recordset(:events) as e(
        event_id uuid, user_id uuid, topic text, payload text, occurred_at timestamptz, traceparent text
    )
    join bumped on bumped.id = e.user_id
)
select id from bumped;

-- name: list_without_email
-- Which of these users still wait for their e-mail address.
select p.user_id
from user_profiles p join users u on u.id = p.user_id
where p.user_id = any(:user_ids::uuid[]) and p.email is null and u.erased_at is null
order by p.user_id;
