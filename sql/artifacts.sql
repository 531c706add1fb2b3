-- name: accept_artifact
-- A document that is to be fetched. One that is there keeps its row, and while it waits takes the newer address.
insert into kyc_artifacts (
    id, kyc_case_id, attempt_id, artifact_type, storage_ref_enc, source_enc, next_try_at, created_at
)
values (
    :artifact.id, :artifact.case_id, :artifact.attempt_id, :artifact.type, :artifact.storage_ref_enc,
    :artifact.source_enc, :artifact.created_at, :artifact.created_at
)
on conflict (attempt_id, artifact_type) do update
set source_enc = excluded.source_enc
where kyc_artifacts.state = 'pending';

-- name: take_waiting
-- Documents that are due, each for one worker at a time: whoever dies with one leaves it for the next try.
update kyc_artifacts a
set tries = a.tries + 1, next_try_at = :leased_until
from kyc_cases c
where c.id = a.kyc_case_id and a.id in (
    select w.id
    from kyc_artifacts w
    where w.state = 'pending' and w.next_try_at <= :at
    order by w.next_try_at
    limit :most
    for update skip locked
)
returning a.id, c.user_id, a.attempt_id, a.artifact_type, a.storage_ref_enc, a.source_enc, a.tries;

-- name: set_source
-- A newer address; only from the worker that has the lease.
update kyc_artifacts
set source_enc = :source_enc
where id = :artifact_id and state = 'pending' and next_try_at = :lease;

-- name: set_stored
-- The bytes are in the store; true for the worker that has the lease, and for nobody else.
update kyc_artifacts
set state = 'stored', hash = :stored.hash, size = :stored.size, media_type = :stored.media_type,
    uploaded_at = :stored.at, source_enc = null, next_try_at = null
where id = :artifact_id and state = 'pending' and next_try_at = :lease
returning true;

-- name: set_next_try
-- Later. A try that failed for a reason of ours does not count.
update kyc_artifacts
set next_try_at = :at, tries = case when :counts then tries else tries - 1 end
where id = :artifact_id and state = 'pending' and next_try_at = :lease;

-- name: set_given_up
-- Tried often enough: the document is not had. True for the worker that has the lease.
update kyc_artifacts
set state = 'given_up', given_up_for = :reason, source_enc = null, next_try_at = null
where id = :artifact_id and state = 'pending' and next_try_at = :lease
returning true;

-- name: get_stored
-- A document that is in the store, and whose it is.
select a.id, a.kyc_case_id, c.user_id, a.artifact_type, a.storage_ref_enc, coalesce(a.hash, '') as hash,
    coalesce(a.size, 0) as size, coalesce(a.media_type, '') as media_type
from kyc_artifacts a
join kyc_cases c on c.id = a.kyc_case_id
where a.id = :artifact_id and a.state = 'stored';
