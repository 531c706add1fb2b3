set local lock_timeout = '5s';
set local statement_timeout = '60s';

-- A data key that the law keeps is wrapped anew under a class of its own: no read of the service finds it.
alter type retention_class add value 'identity_locked';
alter type retention_class add value 'contact_locked';
alter type retention_class add value 'kyc_evidence_locked';

create table erasures (
    user_id uuid primary key references users (id),
    event_id uuid not null,
    reason text not null,
    actor_id uuid,
    erased_at timestamptz not null,
    keys_destroyed jsonb not null,
    identity_until timestamptz,
    contact_until timestamptz,
    kyc_evidence_until timestamptz,
    due_at timestamptz generated always as (least(identity_until, contact_until, kyc_evidence_until)) stored,
    listed_at timestamptz,
    vendors_told_at timestamptz,
    artifacts_gone_at timestamptz,
    next_try_at timestamptz not null,
    tries integer not null default 0,
    certificate text
);
comment on table erasures is 'One row a person who was erased: what is outstanding, what the law keeps and until when, and the certificate.';
create index erasures_open on erasures (next_try_at) where certificate is null;
create index erasures_due on erasures (due_at) where due_at is not null;
grant select, insert, update on erasures to usercore_app;

grant delete on user_keys, kyc_evidence, kyc_artifacts to usercore_app;
grant update (note_enc) on account_holds to usercore_app;

-- An address may be forgotten: no leaf covers it, only its digest.
create or replace function user_audit_guard() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE' and tg_table_name like 'user\_audit%' then
        if new.ip_addr is null and to_jsonb(new) - 'ip_addr' = to_jsonb(old) - 'ip_addr' then
            return new;
        end if;
    end if;
    raise exception 'user_audit is append-only.' using errcode = 'insufficient_privilege';
end
$$;

create or replace function user_consents_guard() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE' and new.ip_addr is null and to_jsonb(new) - 'ip_addr' = to_jsonb(old) - 'ip_addr' then
        return new;
    end if;
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

-- The owner's function, since the app role may change no row of the trail. Returns how many addresses were forgotten.
create function erase_addresses(person uuid) returns integer
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    forgotten integer;
    more integer;
begin
    if not exists (select from users u where u.id = person and u.erased_at is not null) then
        raise exception 'Only of an erased user.' using errcode = 'object_not_in_prerequisite_state';
    end if;
    -- Their own: the address of whoever looked at them is that of somebody else.
    update user_audit a set ip_addr = null
    where a.user_id = person and a.actor_id = person and a.ip_addr is not null;
    get diagnostics forgotten = row_count;
    update user_consents c set ip_addr = null where c.user_id = person and c.ip_addr is not null;
    get diagnostics more = row_count;
    return forgotten + more;
end
$$;
revoke all on function erase_addresses(uuid) from public;
grant execute on function erase_addresses(uuid) to usercore_app;
