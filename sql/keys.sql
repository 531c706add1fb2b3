-- name: list_keyring
-- Every epoch with where and by what it was wrapped.
select epoch, purpose, version, kms_uri, kms_version, wrapped, commitment, state, created_at, state_since, unused_since
from pii_keyring
order by purpose, version;

-- name: list_dependents
-- How many rows depend on each epoch, by what they are. Reads all of them: for operators.
select k.epoch, d.what, d.count
from pii_keyring k
join (
    select 'user_keys'::keyring_purpose as purpose, u.epoch as number, 'user_keys' as what, count(*) as count
    from user_keys u group by u.epoch
    union all
    select 'user_keys'::keyring_purpose, w.epoch, 'webhook_inbox_keys', count(*)
    from webhook_inbox_keys w group by w.epoch
    union all
    select 'blind_index'::keyring_purpose, get_byte(i.digest, 0) * 256 + get_byte(i.digest, 1), 'user_profiles', count(*)
    from user_profiles p
    cross join lateral (values (p.pan_number_index), (p.phone_index)) as i(digest)
    where i.digest is not null
    group by 2
    union all
    select 'blind_index'::keyring_purpose, c.index_version::integer, 'identity_claims', count(*)
    from identity_claims c
    where not exists (
        select from identity_claims n
        where n.user_id = c.user_id and n.kind = c.kind and n.index_version > c.index_version
    )
    group by c.index_version
    union all
    select 'audit_signing'::keyring_purpose, s.key_version, 'audit_segments', count(*)
    from audit_segments s where s.key_version is not null group by s.key_version
) as d on d.purpose = k.purpose and d.number = case when k.purpose = 'user_keys' then k.epoch else k.version end
order by k.epoch, d.what;

-- name: add_epoch
-- A new epoch, which nobody writes under yet.
insert into pii_keyring (purpose, version, kms_uri, kms_version, wrapped, commitment, state)
values (
    :epoch.purpose, :epoch.version, :epoch.kms_uri, :epoch.kms_version, :epoch.wrapped, :epoch.commitment, 'retiring'
)
returning epoch;

-- name: set_retiring
-- What was written under stays readable.
update pii_keyring set state = 'retiring', state_since = now() where purpose = :purpose and state = 'active';

-- name: set_active
-- What is written under from now on.
update pii_keyring set state = 'active', state_since = now(), unused_since = null where epoch = :epoch;

-- name: set_retired
-- Processes forget it at their next refresh.
update pii_keyring set state = 'retired', state_since = now() where epoch = :epoch and state = 'retiring';

-- name: set_destroyed
-- The last thing that is left of a retired epoch.
update pii_keyring set wrapped = ''::bytea where epoch = :epoch and state = 'retired';

-- name: set_wrapped
-- The same epoch under another version of the KMS key, or under another key; nothing when somebody else was faster.
update pii_keyring set kms_uri = :kms_uri, kms_version = :kms_version, wrapped = :wrapped
where epoch = :epoch and wrapped = :was and state <> 'retired'
returning true;

-- name: lock_user_keys
-- Nobody adds or changes a data key until the transaction ends; they are read as ever.
lock table user_keys, webhook_inbox_keys in share row exclusive mode;

-- name: take_old_claims
-- The claims of an index version whose owner has one of a newer version for the same.
delete from identity_claims c
where c.index_version = :index_version
    and exists (
        select from identity_claims n
        where n.user_id = c.user_id and n.kind = c.kind and n.index_version > c.index_version
    );

-- name: count_quarantined
-- The data keys of an epoch that were put aside and are still there: not those of people who were erased since.
select count(*) from user_keys_quarantine q
join user_keys k on k.user_id = q.user_id and k.retention_class = q.retention_class and k.version = q.version
where k.epoch = :epoch and q.epoch = :epoch;

-- name: list_quarantined
-- What does not open, oldest first.
select user_id, retention_class, version, epoch, reason, found_at
from user_keys_quarantine order by found_at, user_id, retention_class, version limit :most;
