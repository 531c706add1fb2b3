-- name: accept_message
-- Keep a webhook once; the same message again is not kept.
insert into webhook_inbox (
    id, vendor, dedupe_key, attempt_id, authentic_body, body_enc, headers_enc, day, next_try_at, request_id,
    traceparent, received_at
)
values (
    :message.id, :message.vendor, :message.dedupe_key, :message.attempt_id, :message.authentic_body,
    :message.body_enc, :message.headers_enc, :message.day, :message.received_at, :message.request_id,
    :message.traceparent, :message.received_at
)
on conflict (vendor, dedupe_key) do nothing
returning true;

-- name: take_waiting
-- Messages that are due, each for one worker at a time: whoever dies with one leaves it for the next try.
update webhook_inbox
set tries = tries + 1, next_try_at = :leased_until
where id in (
    select m.id
    from webhook_inbox m
    where m.state = 'waiting' and m.next_try_at <= :at
    order by m.next_try_at
    limit :most
    for update skip locked
)
returning id, vendor, attempt_id, authentic_body, body_enc, headers_enc, day, tries, request_id, traceparent, received_at;

-- name: set_applied
-- Done with it: what it said is evidence now.
update webhook_inbox
set state = 'applied', body_enc = null, headers_enc = null, next_try_at = null, applied_at = :at
where id = :message_id;

-- name: set_given_up
-- It came to nothing, and is kept for a week for whoever mends the reason.
update webhook_inbox set state = :state, next_try_at = null, applied_at = :at where id = :message_id;

-- name: set_next_try
-- Later: the vendor cannot be had, or we do not know the attempt yet.
update webhook_inbox set next_try_at = :at where id = :message_id;

-- name: get_key
-- The data key of a day.
select k.owner, k.epoch, k.wrapped from webhook_inbox_keys k where k.day = :day;

-- name: accept_key
-- The first key of a day stands.
insert into webhook_inbox_keys (day, owner, epoch, wrapped) values (:day, :key.user_id, :key.epoch, :key.wrapped)
on conflict do nothing;

-- name: take_old
-- Destroy what is a week old: the messages, and the keys that opened them.
with gone as (
    delete from webhook_inbox where received_at < :before
)
delete from webhook_inbox_keys where day < :before::timestamptz::date;

-- name: count_waiting
-- How many messages wait.
select count(*) from webhook_inbox m where m.state = 'waiting';
