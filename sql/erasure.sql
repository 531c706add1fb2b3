-- name: lock_subject
-- Whoever it is, erased or not, held until the transaction ends.
select
    u.id, u.status, u.closed_at, u.erased_at,
    exists (select from kyc_cases c where c.user_id = u.id) as had_case,
    exists (
        select from account_holds h where h.user_id = u.id and h.reason = 'court_order' and h.lifted_at is null
    ) as legal_hold
from users u
where u.id = :user_id
for update of u;

-- name: take_keys
-- Destroy data keys: what they sealed is noise from now on, in every copy.
delete from user_keys k where k.user_id = :user_id and k.retention_class = any(:classes::retention_class[]);

-- name: set_erased
-- The tombstone: the row stays, and nothing creates the user again.
update users set erased_at = :at, version = version + 1, updated_at = :at where id = :user_id
returning version;

-- name: set_unsearchable
-- What is clear, and the indexes: nobody finds an erased person.
update user_profiles
set email = null, avatar_url = null, pan_number_index = null, phone_index = null, updated_at = :at
where user_id = :user_id;

-- name: set_no_contact
-- What contact data is sealed.
update user_profiles set phone_enc = null where user_id = :user_id;

-- name: set_no_identity
-- Who the person was.
update user_profiles
set first_name_enc = null, last_name_enc = null, date_of_birth_enc = null, pan_number_enc = null,
    aadhaar_last4_enc = null, address_enc = null
where user_id = :user_id;

-- name: set_no_notes
-- What was noted of holds.
update account_holds set note_enc = null, lift_note_enc = null where user_id = :user_id;

-- name: take_answers
-- Answers to a person's own requests.
delete from idempotency_keys where sub = :user_id;

-- name: set_no_sealed_kyc
-- What cases and attempts have sealed besides evidence.
with cases as (
    update kyc_cases set bank_account_enc = null, note_enc = null, redirect_url = null
    where user_id = :user_id
    returning id
)
update kyc_attempts a set hosted_enc = null from cases where a.case_id = cases.id;

-- name: take_evidence
-- What vendors said.
delete from kyc_evidence e using kyc_cases c where c.id = e.case_id and c.user_id = :user_id;

-- name: take_addresses
-- Forget where a person came from, in consents and in the trail.
select erase_addresses(:user_id) as count;

-- name: take_late_addresses
-- Those of reads that were under way when their person was erased, of some people.
with late as (
    select e.user_id from erasures e
    where e.addresses_again_at <= :at
    order by e.addresses_again_at
    limit :most
    for update skip locked
),
forgotten as (
    select l.user_id, erase_addresses(l.user_id) as count from late l
)
update erasures e set addresses_again_at = null from forgotten f where e.user_id = f.user_id
returning e.user_id;

-- name: add_erasure
-- From here on it is known what is outstanding.
insert into erasures (
    user_id, event_id, reason, actor_id, erased_at, keys_destroyed, identity_until, contact_until, kyc_evidence_until,
    next_try_at, addresses_again_at
)
values (
    :erasure.user_id, :erasure.event_id, :erasure.reason, :erasure.actor_id, :erasure.erased_at,
    :erasure.keys_destroyed::text::jsonb, :erasure.identity_until, :erasure.contact_until, :erasure.kyc_evidence_until,
    :erasure.erased_at, :erasure.addresses_again_at
);

-- name: list_due
-- Whose kept data has fallen due.
select e.user_id from erasures e where e.due_at <= :at order by e.due_at limit :most;

-- name: list_ended
-- Which of the classes that were kept have fallen due; none when somebody was faster.
select 'identity'::retention_class as retention_class from erasures where user_id = :user_id and identity_until <= :at
union all
select 'contact'::retention_class from erasures where user_id = :user_id and contact_until <= :at
union all
select 'kyc_evidence'::retention_class from erasures where user_id = :user_id and kyc_evidence_until <= :at;

-- name: set_fallen_due
-- What was kept until then is gone: the certificate is made anew.
update erasures
set identity_until = case when identity_until > :at then identity_until end,
    contact_until = case when contact_until > :at then contact_until end,
    kyc_evidence_until = case when kyc_evidence_until > :at then kyc_evidence_until end,
    keys_destroyed = keys_destroyed || :keys_destroyed::text::jsonb,
    certificate = null, next_try_at = now(), tries = 0
where user_id = :user_id;

-- name: list_forgotten
-- Accounts that were closed so long ago that no rule keeps anything of them, and that nobody asked to erase.
select u.id from users u
where u.erased_at is null and u.closed_at < :before
    and not exists (
        select from account_holds h where h.user_id = u.id and h.reason = 'court_order' and h.lifted_at is null
    )
order by u.closed_at
limit :most;

-- name: list_unerased
-- Of these, who is there and not erased: a restored backup has them.
select u.id from users u where u.id = any(:user_ids::uuid[]) and u.erased_at is null;
