-- name: list_epochs
-- Every epoch, retired ones too: a new one takes the next version of its purpose.
select epoch, purpose, version, kms_version, wrapped, commitment, state
from pii_keyring
order by epoch;

-- name: lock_keyring
-- Until the transaction ends. One process at a time adds epochs; readers do not wait.
select pg_advisory_xact_lock(hashtext('usercore.keyring'));

-- name: add_epochs
-- The epochs that are new. Where another process was faster, its epoch stands: each purpose has one active epoch.
insert into pii_keyring (purpose, version, kms_uri, kms_version, wrapped, commitment)
select new.purpose, new.version, new.kms_uri, new.kms_version, new.wrapped, new.commitment
from unnest(
    :epochs.purpose::keyring_purpose[], :epochs.version::integer[], :epochs.kms_uri::text[],
    :epochs.kms_version::text[], :epochs.wrapped::bytea[], :epochs.commitment::bytea[]
) as new (purpose, version, kms_uri, kms_version, wrapped, commitment)
on conflict do nothing
returning epoch;

-- name: list_user_keys
-- A user's wrapped data keys, those that are locked too; of each class the newest last.
select k.user_id, k.retention_class, k.version, k.epoch, k.wrapped from user_keys k
where k.user_id = :user_id
order by k.retention_class, k.version;

-- name: add_user_keys
-- Further data keys: the next version of one that is lost or leaked, or one that is locked.
insert into user_keys (user_id, retention_class, version, epoch, wrapped)
select k.user_id, k.retention_class, k.version, k.epoch, k.wrapped
from unnest(
    :keys.user_id::uuid[], :keys.retention_class::retention_class[], :keys.version::smallint[],
    :keys.epoch::integer[], :keys.wrapped::bytea[]
) as k(user_id, retention_class, version, epoch, wrapped);
