set local lock_timeout = '5s';
set local statement_timeout = '60s';

drop table user_keys_quarantine;
alter table user_keys reset (fillfactor);
revoke update (epoch, wrapped) on webhook_inbox_keys from usercore_app;
revoke update (epoch, wrapped) on user_keys from usercore_app;
revoke update (unused_since) on pii_keyring from usercore_app;
comment on column pii_keyring.state is null;
alter table pii_keyring drop column unused_since, drop column state_since;
