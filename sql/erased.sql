-- name: list_documents
-- Where a person's documents are in the store.
select a.id, a.kyc_case_id, a.attempt_id, a.artifact_type
from kyc_artifacts a join kyc_cases c on c.id = a.kyc_case_id
where c.user_id = :user_id
order by a.id;

-- name: take_documents
-- The rows of documents that are gone from the store.
delete from kyc_artifacts a where a.id = any(:ids::uuid[]);

-- name: list_told_vendors
-- The attempts that vendors keep something of.
select t.id, t.vendor, t.vendor_case_id
from kyc_attempts t join kyc_cases c on c.id = t.case_id
where c.user_id = :user_id and t.vendor_case_id is not null
order by t.id;

-- name: get_erasure
-- How far it is.
select
    e.user_id, e.event_id, e.reason, e.erased_at, e.keys_destroyed::text as keys_destroyed,
    e.identity_until, e.contact_until, e.kyc_evidence_until,
    e.listed_at, e.vendors_told_at, e.artifacts_gone_at, e.certificate
from erasures e
where e.user_id = :user_id;

-- name: take_open
-- Erasures that are not complete, each for one worker at a time: whoever dies with one leaves it for the next try.
update erasures e set tries = e.tries + 1, next_try_at = :again_at
where e.user_id in (
    select o.user_id from erasures o
    where o.certificate is null and o.next_try_at <= :at
    order by o.next_try_at
    limit :most
    for update skip locked
)
returning e.user_id;

-- name: set_progress
-- What is done stays done.
update erasures
set listed_at = coalesce(listed_at, :listed_at), vendors_told_at = coalesce(vendors_told_at, :vendors_told_at),
    artifacts_gone_at = coalesce(artifacts_gone_at, :artifacts_gone_at)
where user_id = :user_id;

-- name: set_certificate
-- The first one that is complete stands.
update erasures set certificate = :certificate where user_id = :user_id and certificate is null;

-- name: get_outstanding
-- How many erasures a store or vendor keeps from being complete, and how often that was tried, once a minute, for one.
select count(*) as count, coalesce(max(e.tries), 0) as most_tries from erasures e where e.certificate is null;
