-- name: list_open_effects
-- What the open holds of a user do; a derived status depends on it.
select distinct h.effect from account_holds h where h.user_id = :user_id and h.lifted_at is null;

-- name: accept_hold
-- Place a hold once: a replayed event finds the hold that it placed before, lifted or not.
insert into account_holds (id, user_id, effect, source, reason, note_enc, placed_by, placed_at, source_event_id)
values (:hold.id, :hold.user_id, :hold.effect, :hold.source, :hold.reason, :hold.note_enc, :hold.placed_by,
        :hold.placed_at, :hold.source_event_id)
on conflict (source_event_id) do nothing
returning true;

-- name: has_open_freeze
-- Whether a party has the account frozen already, for this reason or, with none, for any.
select exists (
    select from account_holds h
    where h.user_id = :user_id and h.source = :source and h.effect = 'freeze' and h.lifted_at is null
        and (:reason::text is null or h.reason = :reason)
);

-- name: take_holds
-- Lift all holds of one party.
update account_holds
set lifted_at = :at, lifted_by = :lifted_by, lift_reason = :reason, lift_note_enc = :note_enc
where user_id = :user_id and source = :source and lifted_at is null
returning id, effect, reason;

-- name: set_closed
-- For good.
update users set closed_at = :at where id = :user_id and closed_at is null;

-- name: set_status
-- Write the status that was derived, and bump the version.
update users set status = :status, version = version + 1, updated_at = :at where id = :user_id
returning version;

-- name: set_activated
-- From now on an account without holds is active.
update users set activated_at = :at where id = :user_id and activated_at is null;

-- name: take_overdue_holds
-- Lift the holds for an overdue KYC.
update account_holds set lifted_at = :at, lift_reason = 'user_verified'
where user_id = :user_id and source = 'kyc' and reason = 'kyc_overdue' and lifted_at is null
returning id;

-- name: accept_auth_events
-- Remember consumed events; those that were consumed before are not returned. Ordered against deadlocks.
insert into inbox (topic, event_id)
select e.topic, e.event_id
from unnest(:topics::text[], :event_ids::uuid[]) as e(topic, event_id)
order by e.topic, e.event_id
on conflict do nothing
returning event_id;
