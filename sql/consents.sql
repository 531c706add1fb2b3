-- name: set_revoked
-- Stamp the active grant of this type as ended, once.
update user_consents set revoked_at = :at
where user_id = :user_id and consent_type = :consent_type and granted and revoked_at is null
returning id, consent_type, version, granted, host(ip_addr) as ip_addr, granted_at, revoked_at;

-- name: add_consent
-- A grant, or a withdrawal.
insert into user_consents
    (id, user_id, consent_type, version, granted, ip_addr, granted_at, revoked_at, recorded_at)
values
    (:consent.id, :user_id, :consent.consent_type, :consent.version, :consent.granted, :consent.ip_addr::text::inet,
     :consent.granted_at, :consent.revoked_at, :at);

-- name: get_consent
-- One row, if it is this user's.
select c.id, c.consent_type, c.version, c.granted, host(c.ip_addr) as ip_addr, c.granted_at, c.revoked_at
from user_consents c
where c.user_id = :user_id and c.id = :id;

-- name: list_current
-- The latest word on each type.
select distinct on (c.consent_type)
    c.id, c.consent_type, c.version, c.granted, host(c.ip_addr) as ip_addr, c.granted_at, c.revoked_at
from user_consents c
where c.user_id = :user_id
order by c.consent_type, c.recorded_at desc, c.id desc;

-- name: list_history
-- Every row, oldest first.
select c.id, c.consent_type, c.version, c.granted, host(c.ip_addr) as ip_addr, c.granted_at, c.revoked_at
from user_consents c
where c.user_id = :user_id
order by c.recorded_at, c.id;
