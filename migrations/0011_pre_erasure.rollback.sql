set local lock_timeout = '5s';
set local statement_timeout = '60s';

-- The classes stay: labels of an enum cannot be taken back, and an older version does not ask for them.
drop function erase_addresses(uuid);
create or replace function user_consents_guard() returns trigger language plpgsql as $$
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
create or replace function user_audit_guard() returns trigger language plpgsql as $$
begin
    raise exception 'user_audit is append-only.' using errcode = 'insufficient_privilege';
end
$$;
revoke update (note_enc) on account_holds from usercore_app;
revoke delete on user_keys, kyc_evidence, kyc_artifacts from usercore_app;
drop table erasures;
