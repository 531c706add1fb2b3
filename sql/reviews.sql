-- name: list_reviews
-- Cases in review after the one that a cursor names, oldest first.
select c.id, c.user_id, c.vendor, c.target_tier, c.review_reason, c.initiated_at, c.version
from kyc_cases c
where c.status = 'in_review' and (c.initiated_at, c.id) > (:after_at, :after_id)
order by c.initiated_at, c.id
limit :most;

-- name: get_case
-- The whole of a case but for what is sealed.
select
    c.id, c.user_id, c.vendor, c.vendor_case_id, c.status, c.rejection_code, c.review_reason, c.target_tier,
    c.initiated_at, c.completed_at, c.expires_at, c.version, c.decision, c.decided_at, c.decided_by
from kyc_cases c
where c.id = :case_id;

-- name: list_case_checks
-- The checks of a case.
select k.kind, k.status, k.vendor, k.completed_at from kyc_checks k where k.case_id = :case_id order by k.kind;

-- name: list_case_evidence
-- All that was said of a case.
select
    e.id, a.vendor, e.source, e.standing, e.vendor_status, e.rejection_code, e.payload_enc, e.occurred_at,
    e.received_at
from kyc_evidence e
join kyc_attempts a on a.id = e.attempt_id
where e.case_id = :case_id
order by e.received_at, e.id;

-- name: list_case_artifacts
-- The documents and pictures of a case.
select f.id, f.artifact_type, f.state, f.hash, f.size, f.uploaded_at
from kyc_artifacts f
where f.kyc_case_id = :case_id
order by f.created_at, f.id;

-- name: set_first_approval
-- The first of two who approve.
update kyc_cases set first_approval_by = :reviewer, version = version + 1 where id = :case_id
returning version;

-- name: set_note
-- What the reviewer wrote.
update kyc_cases set note_enc = :note_enc where id = :case_id;
