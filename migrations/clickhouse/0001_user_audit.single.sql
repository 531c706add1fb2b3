-- One server. A row of no user has the nil UUID for its user: a key of a nullable column would not be used.
-- Every statement of this folder may run again: there is no record of what ran, and none to be wrong.
create table if not exists user_audit (
    segment UInt64,
    xid UInt64,
    event_id UUID,
    user_id UUID,
    actor_id Nullable(UUID),
    actor_kind LowCardinality(String),
    client LowCardinality(Nullable(String)),
    action LowCardinality(String),
    resource String,
    old_value Nullable(String),
    new_value Nullable(String),
    ip_mac Nullable(FixedString(34)),
    timestamp_us Int64,
    scope LowCardinality(Nullable(String)),
    purpose LowCardinality(Nullable(String)),
    request_id Nullable(String),
    trace_id Nullable(String),
    leaf_hash FixedString(32),
    at DateTime('UTC') alias toDateTime(intDiv(timestamp_us, 1000000), 'UTC')
) engine = ReplacingMergeTree
partition by toYYYYMM(toDateTime(intDiv(timestamp_us, 1000000), 'UTC'))
order by (user_id, timestamp_us, event_id);
