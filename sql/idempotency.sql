-- name: accept_attempt
-- Claim the key in the verb's own transaction. A duplicate that is under way holds the row: wait for it a second at
-- most, then SQLSTATE 55P03.
with patience as materialized (select set_config('lock_timeout', '1s', true))
insert into idempotency_keys (sub, method, path, key, fingerprint)
select :attempt.sub, :attempt.method, :attempt.path, :attempt.key, :attempt.fingerprint from patience
on conflict (sub, method, path, key) do update
    set fingerprint = excluded.fingerprint, body_enc = null, created_at = now()
    where idempotency_keys.created_at < now() - interval '24 hours'
returning true;

-- name: get_answer
-- The answer that was given to this key, with the fingerprint of its request.
select i.fingerprint, i.body_enc from idempotency_keys i
where i.sub = :attempt.sub and i.method = :attempt.method and i.path = :attempt.path and i.key = :attempt.key;

-- name: set_answer
-- Keep the answer beside the key.
update idempotency_keys set body_enc = :body_enc
where sub = :attempt.sub and method = :attempt.method and path = :attempt.path and key = :attempt.key;

-- name: take_expired
-- Answers are kept for a day.
delete from idempotency_keys where created_at < now() - interval '24 hours';
