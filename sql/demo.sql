-- name: has_user
-- Whether the event has become a user.
select exists (select from users u where u.id = :user_id);

-- name: count_keys
-- Data keys of one user.
select count(*) from user_keys k where k.user_id = :user_id;

-- name: list_sealed
-- The sealed columns of one profile.
select s.value
from user_profiles p
cross join lateral unnest(array[
    p.first_name_enc::bytea, p.last_name_enc::bytea, p.date_of_birth_enc::bytea, p.pan_number_enc::bytea,
    p.aadhaar_last4_enc::bytea, p.address_enc::bytea, p.phone_enc::bytea
]) as s(value)
where p.user_id = :user_id and s.value is not null;

-- name: list_trail
-- The actions of one user's audit rows, in order.
select a.action from user_audit a where a.user_id = :user_id order by a."timestamp", a.event_id;
