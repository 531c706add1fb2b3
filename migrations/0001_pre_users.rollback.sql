set local lock_timeout = '5s';
set local statement_timeout = '60s';

drop table user_keys, pii_keyring, user_profiles, users;
drop type keyring_state, keyring_purpose, retention_class, kyc_tier, user_kyc_status, user_status;
drop domain sealed;
