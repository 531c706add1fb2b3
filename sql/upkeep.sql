-- name: take_due_cases
-- Open cases that are due, each for one sweeper at a time.
update kyc_cases
set leased_until = :leased_until
where id in (
    select c.id
    from kyc_cases c
    where c.status in ('initiated', 'documents_submitted', 'in_review') and c.next_look_at <= :at
        and (c.leased_until is null or c.leased_until <= :at)
    order by c.next_look_at
    limit :most
    for update skip locked
)
returning id;

-- name: list_messages
-- Messages that changed nothing and can still be read, oldest first.
select m.id, m.vendor, m.state, m.tries, m.received_at, m.next_try_at
from webhook_inbox m
where m.state <> 'applied' and m.body_enc is not null and m.received_at >= :since
    and (:vendor::text is null or m.vendor = :vendor)
order by m.received_at, m.id
limit :most;

-- name: set_due
-- Apply these now, as if they had just come.
update webhook_inbox set state = 'waiting', tries = 0, next_try_at = :at, applied_at = null
where id = any(:message_ids) and state <> 'applied' and body_enc is not null
returning id;

-- name: list_open_cases
-- Cases without a verdict of ours or of a vendor, the one that is open for longest first.
select
    c.id, c.vendor, c.status, c.target_tier, c.initiated_at, c.next_look_at, c.looks,
    (select a.state from kyc_attempts a where a.case_id = c.id order by a.created_at desc, a.id desc limit 1) as attempt
from kyc_cases c
where c.status in ('initiated', 'documents_submitted', 'in_review') and c.initiated_at <= :before
    and (:vendor::text is null or c.vendor = :vendor)
order by c.initiated_at, c.id
limit :most;

-- name: get_case
-- What a sweeper needs to know of a case.
select c.status, c.expires_at, c.looks from kyc_cases c where c.id = :case_id;
