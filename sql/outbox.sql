-- name: add_records
-- The audit rows of a change and its outbox rows, in one statement.
with audited as (
    insert into user_audit (
        event_id, user_id, actor_id, actor_kind, client, action, resource, old_value, new_value,
        ip_addr, ip_mac, "timestamp", scope, purpose, request_id, trace_id, leaf_hash
    )
    select
        a.event_id, a.user_id, a.actor_id, a.actor_kind, a.client, a.action, a.resource, a.old_value, a.new_value,
        a.ip_addr::inet, decode(a.ip_mac, 'base64'), a."timestamp", a.scope, a.purpose, a.request_id, a.trace_id,
        decode(a.leaf_hash, 'base64')
    from json_to_recordset(:audit) as a(
        event_id uuid, user_id uuid, actor_id uuid, actor_kind actor_kind, client text, action audit_action,
        resource text, old_value text, new_value text, ip_addr text, ip_mac text, "timestamp" timestamptz, scope text,
        purpose access_purpose, request_id text, trace_id text, leaf_hash text
    )
)
insert into outbox (event_id, user_id, topic, payload, occurred_at, traceparent)
select e.event_id, e.user_id, e.topic, e.payload, e.occurred_at, e.traceparent
from json_to_recordset(:events) as e(
    event_id uuid, user_id uuid, topic text, payload text, occurred_at timestamptz, traceparent text
);

-- name: get_backlog
-- How many events wait, and since when.
select count(*) as depth, min(o.occurred_at) as oldest from outbox o;

-- name: take_consumed
-- Forget events that were consumed so long ago that Kafka no longer has them.
delete from inbox where received_at < now() - interval '30 days';
