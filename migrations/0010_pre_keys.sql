set local lock_timeout = '5s';
set local statement_timeout = '60s';

alter table pii_keyring
    add column state_since timestamptz not null default now(),
    add column unused_since timestamptz;
comment on column pii_keyring.state is 'A new epoch comes as retiring: every process opens what it wrapped before one of them wraps with it.';
comment on column pii_keyring.unused_since is 'Since when nothing here depends on a retiring epoch. Backups of before still do.';

-- States of epochs are the owner's to change: a service that is taken over can neither retire a key nor bring one back.
grant update (unused_since) on pii_keyring to usercore_app;
grant update (epoch, wrapped) on user_keys to usercore_app;
grant update (epoch, wrapped) on webhook_inbox_keys to usercore_app;

-- Rewrapping changes every row in place: the new one fits beside the old one, and no index changes.
alter table user_keys set (fillfactor = 45);

create table user_keys_quarantine (
    user_id uuid not null,
    retention_class retention_class not null,
    version smallint not null,
    epoch integer not null references pii_keyring (epoch),
    reason text not null,
    found_at timestamptz not null default now(),
    primary key (user_id, retention_class, version)
);
comment on table user_keys_quarantine is 'Data keys that their epoch did not open when they were to be rewrapped. What they sealed cannot be read; they stop nothing.';
grant select, insert, delete on user_keys_quarantine to usercore_app;
