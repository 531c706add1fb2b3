-- name: list_sealed
-- Every sealed value of a person that may be sealed anew, with where it is; answers to requests end within a day.
select v."table", coalesce(v."column", '') as "column", v.id, v.sealed
from (
    select 'user_profiles' as "table", c."column", p.user_id as id, c.sealed
    from user_profiles p
    cross join lateral (values
        ('first_name_enc', p.first_name_enc), ('last_name_enc', p.last_name_enc),
        ('date_of_birth_enc', p.date_of_birth_enc), ('pan_number_enc', p.pan_number_enc),
        ('aadhaar_last4_enc', p.aadhaar_last4_enc), ('address_enc', p.address_enc), ('phone_enc', p.phone_enc)
    ) as c("column", sealed)
    where p.user_id = :user_id
    union all
    select 'account_holds', c."column", h.id, c.sealed
    from account_holds h
    cross join lateral (values ('note_enc', h.note_enc), ('lift_note_enc', h.lift_note_enc)) as c("column", sealed)
    where h.user_id = :user_id
    union all
    select 'kyc_cases', c."column", k.id, c.sealed
    from kyc_cases k
    cross join lateral (values ('bank_account_enc', k.bank_account_enc), ('note_enc', k.note_enc)) as c("column", sealed)
    where k.user_id = :user_id
    union all
    select 'kyc_attempts', c."column", t.id, c.sealed
    from kyc_cases k join kyc_attempts t on t.case_id = k.id
    cross join lateral (values ('token_enc', t.token_enc), ('hosted_enc', t.hosted_enc)) as c("column", sealed)
    where k.user_id = :user_id
    union all
    select 'kyc_evidence', 'payload_enc', e.id, e.payload_enc
    from kyc_cases k join kyc_evidence e on e.case_id = k.id
    where k.user_id = :user_id
    union all
    select 'kyc_artifacts', c."column", a.id, c.sealed
    from kyc_cases k join kyc_artifacts a on a.kyc_case_id = k.id
    cross join lateral (
        values ('storage_ref_enc', a.storage_ref_enc), ('source_enc', a.source_enc)
    ) as c("column", sealed)
    where k.user_id = :user_id
) as v
where v.sealed is not null
order by v."table", v."column", v.id;

-- name: set_profile
-- The profile, whose writers look at the version: whoever read the old values writes nothing and reads again.
with bumped as (update users set version = version + 1 where id = :user_id)
update user_profiles
set first_name_enc = :profile.first_name_enc, last_name_enc = :profile.last_name_enc,
    date_of_birth_enc = :profile.date_of_birth_enc, pan_number_enc = :profile.pan_number_enc,
    aadhaar_last4_enc = :profile.aadhaar_last4_enc, address_enc = :profile.address_enc, phone_enc = :profile.phone_enc
where user_id = :user_id;

-- name: set_hold_notes
-- Each value sealed anew, unless it was changed or emptied meanwhile.
update account_holds t set note_enc = n.sealed
from unnest(:rows.id::uuid[], :rows.sealed::sealed[], :rows.was::sealed[]) as n(id, sealed, was)
where t.id = n.id and t.note_enc = n.was;

-- name: set_lift_notes
-- Each value sealed anew, unless it was changed or emptied meanwhile.
update account_holds t set lift_note_enc = n.sealed
from unnest(:rows.id::uuid[], :rows.sealed::sealed[], :rows.was::sealed[]) as n(id, sealed, was)
where t.id = n.id and t.lift_note_enc = n.was;

-- name: set_bank_accounts
-- Each value sealed anew, unless it was changed or emptied meanwhile.
update kyc_cases t set bank_account_enc = n.sealed
from unnest(:rows.id::uuid[], :rows.sealed::sealed[], :rows.was::sealed[]) as n(id, sealed, was)
where t.id = n.id and t.bank_account_enc = n.was;

-- name: set_review_notes
-- Each value sealed anew, unless it was changed or emptied meanwhile.
update kyc_cases t set note_enc = n.sealed
from unnest(:rows.id::uuid[], :rows.sealed::sealed[], :rows.was::sealed[]) as n(id, sealed, was)
where t.id = n.id and t.note_enc = n.was;

-- name: set_tokens
-- Each value sealed anew, unless it was changed or emptied meanwhile.
update kyc_attempts t set token_enc = n.sealed
from unnest(:rows.id::uuid[], :rows.sealed::sealed[], :rows.was::sealed[]) as n(id, sealed, was)
where t.id = n.id and t.token_enc = n.was;

-- name: set_hosted
-- Each value sealed anew, unless it was changed or emptied meanwhile.
update kyc_attempts t set hosted_enc = n.sealed
from unnest(:rows.id::uuid[], :rows.sealed::sealed[], :rows.was::sealed[]) as n(id, sealed, was)
where t.id = n.id and t.hosted_enc = n.was;

-- name: set_payloads
-- Each value sealed anew, unless it was changed or emptied meanwhile.
update kyc_evidence t set payload_enc = n.sealed
from unnest(:rows.id::uuid[], :rows.sealed::sealed[], :rows.was::sealed[]) as n(id, sealed, was)
where t.id = n.id and t.payload_enc = n.was;

-- name: set_storage_refs
-- Each value sealed anew, unless it was changed or emptied meanwhile.
update kyc_artifacts t set storage_ref_enc = n.sealed
from unnest(:rows.id::uuid[], :rows.sealed::sealed[], :rows.was::sealed[]) as n(id, sealed, was)
where t.id = n.id and t.storage_ref_enc = n.was;

-- name: set_sources
-- Each value sealed anew, unless it was changed or emptied meanwhile.
update kyc_artifacts t set source_enc = n.sealed
from unnest(:rows.id::uuid[], :rows.sealed::sealed[], :rows.was::sealed[]) as n(id, sealed, was)
where t.id = n.id and t.source_enc = n.was;
