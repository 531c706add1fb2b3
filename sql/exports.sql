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

-- name: list_documents
-- The documents of a person that are kept, without what is in them.
select
    a.id, a.artifact_type, t.vendor, coalesce(a.media_type, '') as media_type, coalesce(a.size, 0) as size,
    coalesce(a.hash, '') as sha256, coalesce(a.uploaded_at, a.created_at) as kept_since
from kyc_artifacts a
join kyc_attempts t on t.id = a.attempt_id
join kyc_cases c on c.id = a.kyc_case_id
where c.user_id = :user_id and a.state = 'stored'
order by a.created_at, a.id;
