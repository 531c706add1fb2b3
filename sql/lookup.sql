-- name: list_people
-- Those of the people with this address, phone or PAN whom the other filters leave, newest first.
select u.id, p.email::text as email, u.status, u.kyc_status, u.kyc_tier, u.created_at, u.verified_at
from user_profiles p
join users u on u.id = p.user_id
where p.user_id in (
        select e.user_id from user_profiles e where e.email = :filters.email::citext
        union all
        select i.user_id from user_profiles i where i.phone_index = any(:phone_indexes::bytea[])
        union all
        select i.user_id from user_profiles i where i.pan_number_index = any(:pan_number_indexes::bytea[])
    )
    and (:filters.email::citext is null or p.email = :filters.email::citext)
    and (:phone_indexes::bytea[] is null or p.phone_index = any(:phone_indexes::bytea[]))
    and (:pan_number_indexes::bytea[] is null or p.pan_number_index = any(:pan_number_indexes::bytea[]))
    and (:filters.status::user_status is null or u.status = :filters.status)
    and (:filters.kyc_status::user_kyc_status is null or u.kyc_status = :filters.kyc_status)
    and (:filters.kyc_tier::kyc_tier is null or u.kyc_tier = :filters.kyc_tier)
    and u.created_at >= :filters.created_from and u.created_at < :filters.created_to
    and (u.created_at, u.id) < (:before_at, :before_id) and u.erased_at is null
order by u.created_at desc, u.id desc
limit :most;

-- name: list_accounts
-- Accounts by their state, newest first.
select u.id, p.email::text as email, u.status, u.kyc_status, u.kyc_tier, u.created_at, u.verified_at
from users u
join user_profiles p on p.user_id = u.id
where u.created_at >= :filters.created_from and u.created_at < :filters.created_to
    and (u.created_at, u.id) < (:before_at, :before_id) and u.erased_at is null
    and (:filters.status::user_status is null or u.status = :filters.status)
    and (:filters.kyc_status::user_kyc_status is null or u.kyc_status = :filters.kyc_status)
    and (:filters.kyc_tier::kyc_tier is null or u.kyc_tier = :filters.kyc_tier)
order by u.created_at desc, u.id desc
limit :most;
