-- name: add_attempt
-- A call to a vendor that is about to be made.
insert into kyc_attempts (id, case_id, vendor, token_hash, token_enc, created_at)
values (
    :attempt.id, :attempt.case_id, :attempt.vendor, :attempt.token_hash, :attempt.token_enc, :attempt.created_at
);

-- name: get_attempt
-- One attempt by its own id.
select a.id, a.case_id, a.vendor, a.vendor_case_id, a.state, a.token_enc, a.hosted_enc, a.expires_at, a.calls
from kyc_attempts a
where a.id = :attempt_id;

-- name: get_id_by_reference
-- An attempt by the vendor's id of it.
select a.id from kyc_attempts a where a.vendor = :vendor and a.vendor_case_id = :vendor_case_id;

-- name: get_attempt_by_token
-- One attempt by the secret in its callback URL.
select a.id, a.case_id, a.vendor, a.vendor_case_id, a.state, a.token_enc, a.hosted_enc, a.expires_at, a.calls
from kyc_attempts a
where a.token_hash = :token_hash;

-- name: list_attempts
-- The attempts of a case, oldest first.
select a.id, a.case_id, a.vendor, a.vendor_case_id, a.state, a.token_enc, a.hosted_enc, a.expires_at, a.calls
from kyc_attempts a
where a.case_id = :case_id
order by a.created_at, a.id;

-- name: take_call
-- The right to call the vendor for an attempt; nobody else has it until the call must be over.
update kyc_attempts
set calls = calls + 1, called_at = :at
where id = :attempt_id and state = 'starting' and (called_at is null or called_at <= :not_after)
returning calls;

-- name: set_started
-- The vendor has taken the attempt.
update kyc_attempts
set state = 'started', vendor_case_id = :vendor_case_id, hosted_enc = :hosted_enc, expires_at = :expires_at,
    started_at = :at
where id = :attempt_id;

-- name: set_state
-- An attempt that is over for us: another one took its place.
update kyc_attempts set state = :state where id = :attempt_id;

-- name: set_case_attempt
-- What the case shows of its newest attempt, and when to look after it.
update kyc_cases
set vendor = :vendor, vendor_case_id = :vendor_case_id, next_look_at = :next_look_at, version = version + 1
where id = :case_id;

-- name: set_next_look
-- When the sweeper takes the case up again.
update kyc_cases set next_look_at = :at, looks = looks + 1, leased_until = null where id = :case_id;

-- name: take_lease
-- The right to ask the vendor about a case; false for whoever comes while somebody does.
update kyc_cases set leased_until = :leased_until
where id = :case_id and (leased_until is null or leased_until <= :at)
returning true;

-- name: set_free
-- Give the lease back.
update kyc_cases set leased_until = null where id = :case_id;

-- name: get_target_tier
-- Which step a case is for.
select c.target_tier from kyc_cases c where c.id = :case_id;
