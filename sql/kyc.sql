-- name: lock_case
-- Hold a case until the transaction ends; whoever calls holds its user already.
select
    c.id, c.user_id, c.vendor, c.vendor_case_id, c.status, c.rejection_code, c.target_tier, c.redirect_url,
    c.bank_account_enc, c.initiated_at, c.completed_at, c.expires_at, c.version, c.review_reason, c.decision,
    c.decided_at, c.decided_by, c.first_approval_by
from kyc_cases c
where c.id = :case_id
for update;

-- name: get_case_user
-- Whose case it is: the user is locked before the case.
select c.user_id from kyc_cases c where c.id = :case_id;

-- name: accept_evidence
-- Keep what a vendor said, once for each message or answer.
insert into kyc_evidence (
    id, case_id, attempt_id, source, source_event, standing, vendor_status, rejection_code, payload_enc,
    occurred_at, received_at
)
values (
    :evidence.id, :evidence.case_id, :evidence.attempt_id, :evidence.source, :evidence.source_event,
    :evidence.standing, :evidence.vendor_status, :evidence.rejection_code, :evidence.payload_enc,
    :evidence.occurred_at, :evidence.received_at
)
on conflict (attempt_id, source_event) do nothing
returning true;

-- name: list_evidence
-- All that was said of a case, in the order in which it came.
select
    e.id, e.attempt_id, e.source, e.standing, e.vendor_status, e.rejection_code, e.payload_enc, e.received_at,
    a.state = 'superseded' as superseded
from kyc_evidence e
join kyc_attempts a on a.id = e.attempt_id
where e.case_id = :case_id
order by e.received_at, e.id;

-- name: save_case
-- What a case has come to. The bank account goes when there is a verdict; an open case is looked at again.
update kyc_cases
set status = :case.status, rejection_code = :case.rejection_code, review_reason = :case.review_reason,
    decision = :case.decision, decided_at = :case.decided_at, decided_by = :case.decided_by,
    first_approval_by = :case.first_approval_by, completed_at = :case.completed_at,
    bank_account_enc = :case.bank_account_enc, version = version + 1
where id = :case.id and version = :case.version
returning version;

-- name: save_checks
-- The checks of a case: they stand or fall together.
insert into kyc_checks (id, case_id, user_id, kind, status, vendor, completed_at, valid_until)
select c.id, c.case_id, c.user_id, c.kind, c.status, c.vendor, c.completed_at, c.valid_until
from json_to_recordset(:checks) as c(
    id uuid, case_id uuid, user_id uuid, kind kyc_check, status kyc_check_status, vendor text,
    completed_at timestamptz, valid_until timestamptz
)
on conflict (case_id, kind) do update
set status = excluded.status, vendor = excluded.vendor, completed_at = excluded.completed_at,
    valid_until = excluded.valid_until;

-- name: list_checks
-- Every check of a user, the newest case's first.
select k.case_id, k.kind, k.status, k.vendor, k.completed_at, k.valid_until
from kyc_checks k
join kyc_cases c on c.id = k.case_id
where k.user_id = :user_id
order by c.initiated_at desc, k.kind;

-- name: get_latest_status
-- The status of the newest case of a user.
select c.status from kyc_cases c where c.user_id = :user_id order by c.initiated_at desc limit 1;

-- name: set_kyc
-- What the cases and checks of a user come to.
update users
set kyc_status = :kyc.kyc_status, kyc_tier = :kyc.kyc_tier, verified_at = :kyc.verified_at,
    version = version + 1, updated_at = :kyc.at
where id = :user_id
returning version;

-- name: get_latest_case
-- The newest case of a user.
select c.id from kyc_cases c where c.user_id = :user_id order by c.initiated_at desc, c.id desc limit 1;
