set local lock_timeout = '5s';
set local statement_timeout = '60s';

revoke update (payload_enc) on kyc_evidence from usercore_app;
