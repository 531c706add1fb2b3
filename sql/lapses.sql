-- name: list_lapsed
-- Users whose tier rests on checks that are not good any more.
select distinct k.user_id
from kyc_checks k
join users u on u.id = k.user_id
where k.status = 'passed' and k.valid_until <= :at and u.kyc_status = 'approved' and u.erased_at is null
limit :most;

-- name: set_lapsed
-- What was passed and is not good any more: a tier cannot rest on it again.
update kyc_checks set status = 'failed'
where user_id = :user_id and status = 'passed' and valid_until <= :at
returning case_id;
