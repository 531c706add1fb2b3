set local lock_timeout = '5s';
set local statement_timeout = '60s';

create table outbox (
    shard smallint not null generated always as (get_byte(uuid_send(user_id), 15) & 15) stored,
    id bigint generated always as identity,
    event_id uuid not null,
    user_id uuid not null,
    topic text not null,
    payload text not null,
    occurred_at timestamptz not null,
    traceparent text,
    primary key (shard, id)
)
-- Every row is deleted within moments: vacuum by count, not by share of the table.
with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, fillfactor = 100);
comment on column outbox.shard is 'From the last byte of the user id: a relay takes a whole shard, so one user''s events stay in order.';

create table inbox (
    topic text not null,
    event_id uuid not null,
    received_at timestamptz not null default now(),
    primary key (topic, event_id)
);
create index inbox_received on inbox using brin (received_at);

create table idempotency_keys (
    sub uuid not null,
    method text not null,
    path text not null,
    key text not null,
    fingerprint bytea not null,
    body_enc sealed,
    created_at timestamptz not null default now(),
    primary key (sub, method, path, key)
);
create index idempotency_keys_created on idempotency_keys using brin (created_at);

grant select, insert, delete on outbox, inbox to usercore_app;
grant select, insert, update, delete on idempotency_keys to usercore_app;
