set local lock_timeout = '5s';
set local statement_timeout = '60s';

alter type keyring_purpose add value 'audit_signing';

create table audit_segments (
    number bigint primary key,
    from_xid xid8 not null,
    to_xid xid8 not null,
    count integer not null check (count > 0),
    leaves bytea not null check (octet_length(leaves) = count * 48),
    root bytea not null check (octet_length(root) = 32),
    previous bytea not null check (octet_length(previous) = 32),
    hash bytea not null check (octet_length(hash) = 32),
    sealed_at timestamptz not null,
    key_version integer not null,
    signature bytea not null check (octet_length(signature) = 64),
    check (from_xid < to_xid)
);
comment on table audit_segments is 'The trail in signed, chained pieces, each of the rows of a half-open range of transaction ids.';
comment on column audit_segments.leaves is 'Event id (16 bytes) and leaf hash (32) of each row, in the order (xid, event_id): so the first bad row has a name.';

create unique index audit_segments_end on audit_segments (to_xid);

create trigger audit_segments_append_only before update or delete on audit_segments
    for each row execute function user_audit_guard();
create trigger audit_segments_no_truncate before truncate on audit_segments
    for each statement execute function user_audit_guard();

grant select, insert on audit_segments to usercore_app;
