-- name: list_accesses
-- Who read or received which fields of a user, newest first: what is recorded of disclosures, and masked reads.
select x.at, x.id, x.actor_kind, x.client, coalesce(x.fields, '{}') as fields, x.purpose, x.action
from (
    (
        select d.at, d.id, d.recipient_kind as actor_kind, d.recipient as client, d.fields, d.purpose, d.action
        from pii_disclosures d
        where d.user_id = :user_id and (d.at, d.id) < (:before_at, :before_id)
        order by d.at desc, d.id desc
        limit :most
    )
    union all
    (
        select
            a."timestamp", a.event_id, a.actor_kind, coalesce(a.client, a.actor_kind::text),
            array(select jsonb_array_elements_text(a.new_value::jsonb -> 'fields')), a.purpose::text, a.action::text
        from user_audit a
        where a.user_id = :user_id and (a."timestamp", a.event_id) < (:before_at, :before_id)
            and a.action = 'profile.read' and a.actor_kind in ('internal', 'admin')
        order by a."timestamp" desc, a.event_id desc
        limit :most
    )
) x
order by x.at desc, x.id desc
limit :most;

-- name: get_status
-- The status of a user.
select u.status, u.erased_at from users u where u.id = :user_id;

-- name: list_open_holds
-- The holds of a user that were not lifted, oldest first; never what their notes say.
select h.id, h.effect, h.source, h.reason, h.placed_at
from account_holds h
where h.user_id = :user_id and h.lifted_at is null
order by h.placed_at, h.id;
