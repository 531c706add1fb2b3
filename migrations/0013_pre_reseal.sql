set local lock_timeout = '5s';
set local statement_timeout = '60s';

-- What a vendor said never changes; what it is sealed with may, when a person's data key has leaked.
grant update (payload_enc) on kyc_evidence to usercore_app;
