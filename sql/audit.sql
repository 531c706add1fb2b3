-- name: add_partitions
-- Make the partitions of the months ahead that are missing; the owner's function decides what may be made.
select audit_make_partitions(:months_ahead);

-- name: get_horizon
-- Until when audit rows have a partition to go to.
select max(p.ends_at) from audit_partitions p;

-- name: has_user
-- Whether there is such a user, or was.
select exists (select from users u where u.id = :user_id);

-- name: list_trail
-- What was done to one user, or by whom it was looked at, newest first.
select
    a.event_id, a.user_id, a.actor_id, a.action, a.resource, a.old_value, a.new_value, host(a.ip_addr) as ip_addr,
    a."timestamp"
from user_audit a
where a.user_id = :user_id and (a."timestamp", a.event_id) < (:before_at, :before_id)
    and a."timestamp" >= :since and a."timestamp" < :until
    and (:action::audit_action is null or a.action = :action)
order by a."timestamp" desc, a.event_id desc
limit :most;
