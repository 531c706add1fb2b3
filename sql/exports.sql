-- name: list_recipients
-- Who received which fields of a person, for what and how often.
select
    d.recipient, d.recipient_kind,
    coalesce(array(
        select distinct f.field from pii_disclosures e cross join unnest(e.fields) as f(field)
        where e.user_id = :user_id and e.recipient = d.recipient and e.recipient_kind = d.recipient_kind
        order by f.field
    ), '{}') as fields,
    coalesce(array_agg(distinct d.purpose order by d.purpose), '{}') as purposes,
    count(*) as times, coalesce(max(d.at), now()) as last_at
from pii_disclosures d
where d.user_id = :user_id
group by d.recipient, d.recipient_kind
order by d.recipient, d.recipient_kind;
