-- A cluster: a replicated table on each of its shards, and one table over all of them that the service works with.
-- A user's rows lie on one shard. Servers name their own {shard} and {replica}; $cluster is CLICKHOUSE_CLUSTER.
create table if not exists user_audit_local on cluster '$cluster' (
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
) engine = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/user_audit', '{replica}')
partition by toYYYYMM(toDateTime(intDiv(timestamp_us, 1000000), 'UTC'))
order by (user_id, timestamp_us, event_id);

create table if not exists user_audit on cluster '$cluster' as user_audit_local
engine = Distributed('$cluster', currentDatabase(), user_audit_local, cityHash64(toString(user_id)));
