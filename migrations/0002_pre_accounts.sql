set local lock_timeout = '5s';
set local statement_timeout = '60s';

create type consent_type as enum ('terms_of_service', 'privacy_policy', 'marketing', 'data_sharing', 'risk_disclosure');
create type hold_effect as enum ('freeze', 'suspend');

create table user_consents (
    id uuid primary key,
    user_id uuid not null references users (id),
    consent_type consent_type not null,
    version text not null,
    granted boolean not null,
    ip_addr inet,
    granted_at timestamptz not null,
    revoked_at timestamptz,
    recorded_at timestamptz not null,
    check (granted or revoked_at is not null)
);
comment on table user_consents is 'Append-only: a withdrawal is a row of its own and stamps revoked_at of the grant, once.';
create index user_consents_history on user_consents (user_id, recorded_at, id);
create unique index user_consents_active on user_consents (user_id, consent_type) where granted and revoked_at is null;

create function user_consents_guard() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE' and old.granted and old.revoked_at is null and new.revoked_at is not null
       and (new.id, new.user_id, new.consent_type, new.version, new.granted, new.granted_at, new.recorded_at)
           = (old.id, old.user_id, old.consent_type, old.version, old.granted, old.granted_at, old.recorded_at)
       and new.ip_addr is not distinct from old.ip_addr
    then
        return new;
    end if;
    raise exception 'user_consents is append-only: only revoked_at of an open grant may be set, once.'
        using errcode = 'insufficient_privilege';
end
$$;
create trigger user_consents_guard before update or delete on user_consents
    for each row execute function user_consents_guard();
create trigger user_consents_no_truncate before truncate on user_consents
    for each statement execute function user_consents_guard();

create table notification_prefs (
    user_id uuid primary key references users (id),
    email_trade_fills boolean not null default true,
    email_deposits boolean not null default true,
    email_withdrawals boolean not null default true,
    email_security_alerts boolean not null default true,
    push_enabled boolean not null default true,
    sms_enabled boolean not null default false,
    updated_at timestamptz not null
);

create table account_holds (
    id uuid primary key,
    user_id uuid not null references users (id),
    effect hold_effect not null,
    source text not null check (source ~ '^[a-z][a-z0-9_]{0,31}$'),
    reason text not null check (reason ~ '^[a-z][a-z0-9_]{0,31}$'),
    note_enc sealed,
    placed_by uuid,
    placed_at timestamptz not null,
    lifted_by uuid,
    lifted_at timestamptz,
    lift_reason text,
    lift_note_enc sealed,
    source_event_id uuid unique
);
comment on column account_holds.source_event_id is 'A replayed event finds its row here and cannot place a lifted hold again.';
create index account_holds_open on account_holds (user_id) where lifted_at is null;

grant select, insert on user_consents, account_holds to usercore_app;
grant update (revoked_at) on user_consents to usercore_app;
grant update (lifted_by, lifted_at, lift_reason, lift_note_enc) on account_holds to usercore_app;
grant select, insert, update on notification_prefs to usercore_app;
