-- name: add_case
-- A step of verification, which one vendor does.
insert into kyc_cases (
    id, user_id, vendor, target_tier, redirect_url, bank_account_enc, initiated_at, expires_at, next_look_at
)
values (
    :case.id, :case.user_id, :case.vendor, :case.target_tier, :case.redirect_url, :case.bank_account_enc,
    :case.initiated_at, :case.expires_at, :case.next_look_at
);

-- name: get_newest_case
-- The newest case of a user.
select
    c.id, c.vendor, c.status, c.rejection_code, c.target_tier, c.initiated_at, c.completed_at, c.expires_at, c.version,
    c.vendor_case_id is not null as answered
from kyc_cases c
where c.user_id = :user_id
order by c.initiated_at desc, c.id desc
limit 1;

-- name: get_case
-- One case of a user.
select
    c.id, c.vendor, c.status, c.rejection_code, c.target_tier, c.initiated_at, c.completed_at, c.expires_at, c.version,
    c.vendor_case_id is not null as answered
from kyc_cases c
where c.id = :case_id and c.user_id = :user_id;

-- name: count_failed
-- How often a user has failed at a tier.
select count(*)
from kyc_cases c
where c.user_id = :user_id and c.target_tier = :target_tier and c.status in ('rejected', 'expired');

-- name: get_hosted
-- What lets the person go on with the newest attempt of a case, with the user's keys.
select
    a.hosted_enc, a.expires_at,
    k.classes as key_classes, k.versions as key_versions, k.epochs as key_epochs, k.wraps as key_wraps
from kyc_attempts a
join kyc_cases c on c.id = a.case_id
cross join lateral (
    select
        array_agg(retention_class) as classes, array_agg(version) as versions,
        array_agg(epoch) as epochs, array_agg(wrapped) as wraps
    from user_keys where user_keys.user_id = c.user_id
) as k
where a.case_id = :case_id and a.state = 'started'
order by a.created_at desc
limit 1;

-- name: get_user_kyc
-- What a user's verification has come to.
select u.kyc_status, u.kyc_tier, u.verified_at, u.erased_at from users u where u.id = :user_id;

-- name: list_current_checks
-- The newest of each check of a user.
select distinct on (k.kind) k.kind, k.status, k.vendor, k.completed_at, k.valid_until
from kyc_checks k
join kyc_cases c on c.id = k.case_id
where k.user_id = :user_id
order by k.kind, c.initiated_at desc;
