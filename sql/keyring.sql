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
